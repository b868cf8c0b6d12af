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
# Attributes that every module has; none of them is a tensor.
_USUAL = frozenset(vars(nn.Module()))


def copied(network: Network) -> Network:
    """A deep copy; tensors that autograd computed, which `copy.deepcopy` refuses, are copied as values.

    Such is the `weight` of a layer under `torch.nn.utils.weight_norm`, which is computed again in each forward.
    """
    seen: set[int] = set()
    computed = {
        id(one): one.detach().clone() for part in network.modules() for one in _computed(vars(part), seen)
    }
    return copy.deepcopy(network, computed)


class Follower:
    """Gives a copy of a network, again and again, what the network holds besides parameters.

    It does what `hold(copy, held_tensors(network))` does, in a fraction of the time, since it is called after every step:
    names are looked up again only where there are new ones.

    Args:
        network: Changes from call to call.
        copy: Of the same modules.
    """

    def __init__(self, network: nn.Module, copy: nn.Module) -> None:
        self._network, self._copy = network, copy
        self._parts = list(network.modules())
        self._children = self._children_now()
        pairs = list(zip(self._parts, copy.modules(), strict=True))
        # Where a module keeps tensors, its buffers and its attributes, and the same place of the copy.
        self._places: list[tuple[dict[str, Any], dict[str, Any]]] = [
            *((part._buffers, own._buffers) for part, own in pairs),
            *((part.__dict__, own.__dict__) for part, own in pairs),
        ]
        self._names = self._names_now()
        self._entries = self._entries_now()

    @torch.no_grad()
    def __call__(self) -> None:
        """Take over the tensors as they are now.

        Raises:
            InputError: a tensor of a module that the copy does not have.
        """
        if self._children_now() != self._children:  # a module was added or replaced
            hold(self._copy, held_tensors(self._network))
            return
        names = self._names_now()
        if names != self._names:
            self._names, self._entries = names, self._entries_now()
        sources: list[Tensor] = []
        copies: list[Tensor] = []
        for there, own, name in self._entries:
            value = there[name]
            if not isinstance(value, Tensor) or not _is_held(value):
                continue
            current = own.get(name)
            if isinstance(current, Tensor) and _alike(current, value):
                sources.append(value)
                copies.append(current)
            else:
                own[name] = value.detach().clone()
        if copies:
            torch._foreach_copy_(copies, sources)

    def _children_now(self) -> list[nn.Module | None]:
        return [child for part in self._parts for child in part._modules.values()]

    def _names_now(self) -> list[tuple[int, str | None]]:
        """How many names each place has, and the last: a new name is the last one."""
        return [(len(there), next(reversed(there), None)) for there, _ in self._places]

    def _entries_now(self) -> list[tuple[dict[str, Any], dict[str, Any], str]]:
        """Every place with each of its names that may be that of a tensor."""
        return [(there, own, name) for there, own in self._places for name in there if name not in _USUAL]


def held_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Buffers and plain tensor attributes by their names; not those that autograd follows, or sparse ones."""
    return {
        f"{path}.{name}".removeprefix("."): value
        for path, part in network.named_modules()
        for name, value in (*part._buffers.items(), *vars(part).items())
        if isinstance(value, Tensor) and _is_held(value)
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


def _is_held(value: Tensor) -> bool:
    return not value.requires_grad and value.layout == torch.strided


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
