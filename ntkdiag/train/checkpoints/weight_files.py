"""Weights in safetensors files: read as data, and refused unless every name and shape is that of the network."""

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
        network: Any module; for a `Denoiser`, the network inside it is saved.
        path: The file to write.

    Raises:
        InputError: the folder cannot be written to.

    Example:
        >>> network = nd.models.build("mlp", (2,))
        >>> save_weights(network, "weights.safetensors")
        >>> load_weights(network, "weights.safetensors")
    """
    provenance.write_bytes(path, safetensors.torch.save(state_of(bare(network))))


def load_weights(network: nn.Module, path: Path | str) -> None:
    """Load a .safetensors file into a network, in place.

    Args:
        network: Any module; for a `Denoiser`, the network inside it is loaded. The stored numbers are converted to
            its dtype and device.
        path: The file.

    Raises:
        InputError: the file is missing or damaged, its names or shapes are not the network's (the error names
            the first ones), or it contains a NaN or infinity.
    """
    load_state(bare(network), read_tensors(path), str(path))


def bare(network: nn.Module) -> nn.Module:
    """The network inside a denoiser; any other module as it is."""
    return network.network if isinstance(network, Denoiser) else network


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state on the CPU; tied tensors are copied once for each of their names."""
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
    """Load a state into a module if all of it fits.

    Args:
        module: Changed in place; unchanged if the state does not fit.
        state: Tensors by name.
        what: Name of the state's source in an error.

    Raises:
        InputError: see `load_weights`.
    """
    check_fit(module.state_dict(), state, f"{what} for {type(module).__name__}")
    module.load_state_dict(dict(state), strict=True)


def check_fit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that differ from the wanted ones in name or shape, or are not finite.

    Raises:
        InputError: names the first missing, unexpected and misshapen tensors, or the first one that contains a
            NaN or infinity.
    """
    faults = [
        _fault("missing", [f"{name} {list(wanted[name].shape)}" for name in wanted if name not in state]),
        _fault("unexpected", [f"{name} {list(state[name].shape)}" for name in state if name not in wanted]),
        _fault(
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
        dtype = wanted[name].dtype
        if value.is_complex() and not dtype.is_complex:
            raise InputError(what, expected=f"real numbers in {name}", got=str(value.dtype))
        # Checked in the network's dtype, since 1e300 is infinite in float32; as float64, since float8 has no isfinite.
        converted = value.to(dtype)
        if not bool(torch.isfinite(converted if dtype.is_complex else converted.double()).all()):
            raise InputError(what, expected="finite numbers", got=f"a NaN or infinity in {name}")


def _fault(kind: str, names: list[str]) -> str:
    return f"{len(names)} {kind} (first: {names[0]})" if names else ""
