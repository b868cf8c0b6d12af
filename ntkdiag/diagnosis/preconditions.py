"""Checks before a measurement starts: that networks fit the data and each other, and that a full kernel can be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ntkdiag.conditions import Conditions, extremes, rows_of
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.diagnosis.full_kernel import FullSettings
from ntkdiag.diagnosis.result import require_folder_name
from ntkdiag.errors import InputError, first_line, listed, require_int, require_type
from ntkdiag.kernel.parameters import require_whole
from ntkdiag.modes import measuring


def require_full(settings: FullSettings, rows: int, params: str | Sequence[str] | None) -> None:
    """Raise an error before any work if the full kernel cannot be measured with these settings."""
    require_type("full", settings, FullSettings, "nd.FullSettings(), or None for the trace kernel alone")
    for what, value, least in (
        ("top_k", settings.top_k, 1),
        ("trace_vectors", settings.trace_vectors, 3),
        ("quadrature_vectors", settings.quadrature_vectors, 0),
        ("quadrature_steps", settings.quadrature_steps, 1),
        ("contraction_steps", settings.contraction_steps, 1),
    ):
        require_int(what, value, at_least=least)
    if settings.top_k > rows:
        raise InputError("top_k", expected=f"at most the {rows} rows of the full kernel", got=settings.top_k)
    if params is not None:
        raise InputError(
            "params", expected="none beside the full kernel, which is that of all parameters", got=params
        )


def require_references(references: object) -> dict[str, Denoiser]:
    """Return the references if they are networks by name; raise an error before any work otherwise."""
    require_type(
        "refs", references, Mapping, "a dict from names to Denoisers, such as {'untrained': denoiser}"
    )
    assert isinstance(references, Mapping)
    for name, network in references.items():
        require_type("name of a reference", name, str, "a text such as 'untrained'")
        require_denoiser(f"reference '{name}'", network)
    return dict(references)


def require_comparable(name: str, reference: Denoiser, denoiser: Denoiser) -> None:
    """Raise an error before any work if a reference has another target or schedule than the network."""
    require_folder_name(f"reference '{name}'", name)
    for what, own, other in (
        ("target", denoiser.target, reference.target),
        ("schedule", denoiser.schedule, reference.schedule),
        ("conditions", list(denoiser.conditions), list(reference.conditions)),
    ):
        if own != other:
            raise InputError(f"reference '{name}'", expected=f"the network's {what} {own}", got=other)


def _with(cond: Conditions) -> str:
    """The conditions as an error describes them: of labels their range."""
    parts = []
    for name, values in cond.items():
        labels = values.ndim == 1 and not values.is_floating_point()
        parts.append(
            f"{name} from {int(values.min())} to {int(values.max())}"
            if labels
            else f"{name} {list(values.shape[1:])}"
        )
    return f" with {listed(parts)}" if parts else ""


def require_forward(denoiser: Denoiser, data: Data) -> None:
    """Raise an error before any work if the network cannot run on the data."""
    parameter = next(denoiser.parameters(), None)
    if parameter is None:
        raise InputError("network", expected="a network with parameters", got="none")
    require_whole(denoiser.network)
    cond = denoiser.conditions_from(data.conditions)
    rows = extremes(cond)  # a label out of range fails here
    sample = data.train[rows].to(parameter)
    try:
        with torch.no_grad(), measuring(denoiser):
            denoiser(sample, 0.0, rows_of(cond, rows) or None)
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            "network",
            expected=f"a forward on data of shape {tuple(sample.shape)}{_with(cond)}",
            got=first_line(error),
            fix="Check the data's shape, and what {call} says the network is called with.",
            arguments={"call": None},
        ) from error
