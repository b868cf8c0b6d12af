"""What a network holds besides its parameters, and a copy of a network with all of it.

That is its buffers, those outside the state dict too, and plain tensor attributes. A forward may change them in place, or
assign new tensors in their place (`self.mean = 0.9 * self.mean + …`), so they are looked up by name each time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


def copied(network: Network) -> Network:
    """A deep copy; tensors that autograd computed, which `copy.deepcopy` refuses, are copied as values.

    Such is the `weight` of a layer under `torch.nn.utils.weight_norm`, which is computed again in each forward.
    """
    seen: set[int] = set()
    computed = {
        id(one): one.detach().clone() for part in network.modules() for one in _computed(vars(part), seen)
    }
    return copy.deepcopy(network, computed)


def held_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Buffers and plain tensor attributes by their names; not those that autograd follows, or sparse ones."""
    return {
        f"{path}.{name}".removeprefix("."): value
        for path, part in network.named_modules()
        for name, value in (*part._buffers.items(), *vars(part).items())
        if isinstance(value, Tensor) and not value.requires_grad and value.layout == torch.strided
    }


def outside_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """Those of `held_tensors` that the network's state dict leaves out."""
    saved = network.state_dict()
    return {name: value for name, value in held_tensors(network).items() if name not in saved}


def of_another_shape(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors that the network holds in another shape, as after a broadcast in `self.mean = 0.9 * self.mean + …`."""
    held = held_tensors(network)
    return {n: value for n, value in tensors.items() if n in held and held[n].shape != value.shape}


@torch.no_grad()
def hold(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the values of `held_tensors`; a tensor of another shape or dtype replaces the network's own.

    Raises:
        InputError: a tensor of a module that the network does not have.
    """
    parts = dict(network.named_modules())
    for name, value in tensors.items():
        path, _, own = name.rpartition(".")
        if path not in parts:
            raise InputError(
                "network",
                expected="the same modules throughout training",
                got=f"a tensor of {path}, which was not there at the start",
                fix="Create every module in __init__.",
            )
        part = parts[path]
        place: dict[str, Any] = part._buffers if own in part._buffers else part.__dict__
        current = place.get(own)
        if isinstance(current, Tensor) and _alike(current, value):
            current.copy_(value)
        else:
            device = current.device if isinstance(current, Tensor) else _device(network)
            place[own] = value.detach().to(device, copy=True)


def _alike(current: Tensor, value: Tensor) -> bool:
    """Whether one can be written into the other; an expanded tensor cannot be written into."""
    return (
        current.shape == value.shape
        and current.dtype == value.dtype
        and current.is_contiguous()
        and not current.requires_grad
    )


def _computed(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """The tensors with a history in the attributes of a module, also in lists, tuples and dicts; each once."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
    elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
        seen.add(id(value))
        for one in value.values() if isinstance(value, dict) else value:
            yield from _computed(one, seen)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
