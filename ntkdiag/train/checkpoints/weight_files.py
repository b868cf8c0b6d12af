"""Weights in safetensors files: read as data, and refused unless every name and shape fits the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ntkdiag import provenance
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError


def save_weights(network: nn.Module, path: Path | str) -> None:
    """Write a network's parameters and buffers to a .safetensors file, whole or not at all.

    Args:
        network: Any module; of a `Denoiser`, its network.
        path: The file to write.

    Raises:
        InputError: the folder cannot be written to.
    """
    provenance.write_bytes(path, safetensors.torch.save(state_of(bare(network))))


def load_weights(network: nn.Module, path: Path | str) -> None:
    """Load a .safetensors file into a network, in place.

    Args:
        network: Any module; of a `Denoiser`, its network. Stored numbers are cast to its dtype and device.
        path: The file.

    Raises:
        InputError: the file is missing or damaged, its names or shapes are not the network's (the first ones
            are named), or it holds a NaN or infinity.
    """
    load_state(bare(network), read_tensors(path), str(path))


def bare(network: nn.Module) -> nn.Module:
    """The network inside a denoiser; any other module as it is."""
    return network.network if isinstance(network, Denoiser) else network


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state on the CPU; tied tensors are written out once for each name."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()
    }


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, on the CPU.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = Path(path)
    if not provenance.is_file(path):
        raise InputError(str(path), expected="an existing .safetensors file", got="no such file")
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(str(path), expected="a whole .safetensors file", got=str(error)) from error


def load_state(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copy a state into a module after checking all of it.

    Args:
        module: Changed in place, or left as it was if the state does not fit.
        state: Tensors by name.
        what: Where the state comes from, for the error.

    Raises:
        InputError: see `load_weights`.
    """
    check_fit(module.state_dict(), state, f"{what} for {type(module).__name__}")
    module.load_state_dict(dict(state), strict=True)


def check_fit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that differ from the wanted ones in name or shape, or are not finite.

    Raises:
        InputError: in one line, the first missing, unexpected and misshapen names, or the first tensor
            that holds a NaN or infinity.
    """
    faults = [
        _told("missing", [f"{name} {list(wanted[name].shape)}" for name in wanted if name not in state]),
        _told("unexpected", [f"{name} {list(state[name].shape)}" for name in state if name not in wanted]),
        _told(
            "of another shape",
            [
                f"{name} {list(state[name].shape)} instead of {list(wanted[name].shape)}"
                for name in wanted
                if name in state and state[name].shape != wanted[name].shape
            ],
        ),
    ]
    if any(faults):
        raise InputError(what, expected=f"its {len(wanted)} tensors", got="; ".join(filter(None, faults)))
    for name, value in state.items():
        kind = wanted[name].dtype
        if value.is_complex() and not kind.is_complex:
            raise InputError(what, expected=f"real numbers in {name}", got=str(value.dtype))
        # As the network will hold them: 1e300 is infinite in float32. Through float64, as float8 has no isfinite.
        held = value.to(kind)
        if not bool(torch.isfinite(held if kind.is_complex else held.double()).all()):
            raise InputError(what, expected="finite numbers", got=f"a NaN or infinity in {name}")


def _told(fault: str, names: list[str]) -> str:
    return f"{len(names)} {fault} (first: {names[0]})" if names else ""
