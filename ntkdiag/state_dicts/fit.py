"""A state dict is loaded into a module only if every name, shape and number fits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError


def load_state(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state into a module if all of it fits.

    Args:
        module: Changed in place; unchanged if the state does not fit.
        state: Tensors by name.
        what: Name of the state's source in an error.

    Raises:
        InputError: see `check_fit`.
    """
    check_fit(module.state_dict(), state, f"{what} for {type(module).__name__}")
    module.load_state_dict(dict(state), strict=True)


def check_fit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that differ from the wanted ones in name or shape, or are not finite.

    An infinity where the wanted tensor has the same one is accepted, as in a buffer that masks attention.

    Raises:
        InputError: names the first missing, unexpected and misshapen tensors, or the first one that contains a
            NaN or infinity.
    """
    if faults := misfits(wanted, state):
        raise InputError(what, expected=f"its {len(wanted)} tensors", got=faults)
    for name, value in state.items():
        dtype = wanted[name].dtype
        if value.is_complex() and not dtype.is_complex:
            raise InputError(what, expected=f"real numbers in {name}", got=str(value.dtype))
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            kind = "quantized" if value.is_quantized else f"{value.layout} on {value.device}"
            raise InputError(what, expected=f"a plain tensor in {name}", got=kind)
        # Checked in the network's dtype, since 1e300 is infinite in float32; as float64, since float8 has no isfinite.
        converted = value.to(dtype)
        if not _finite_or_same(converted, wanted[name]):
            raise InputError(what, expected="finite numbers", got=f"a NaN or infinity in {name}")


def _finite_or_same(value: Tensor, wanted: Tensor) -> bool:
    numbers = value if value.is_complex() else value.double()
    finite = torch.isfinite(numbers)
    return bool(finite.all()) or bool((finite | (numbers == wanted.to(numbers))).all())


def misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """How the names and shapes of a state differ from the wanted ones, in words; empty if they do not."""
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
    return "; ".join(filter(None, faults))


def _fault(kind: str, names: list[str]) -> str:
    return f"{len(names)} {kind} (first: {names[0]})" if names else ""
