"""Runs the engine that the user asks for, streaming, exact or plain autograd, on checked inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.kernel import autograd, exact
from ntkdiag.kernel.directions import Directions, checked_output
from ntkdiag.kernel.guards import MixingGuard, require_same
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.preconditioner import checked
from ntkdiag.kernel.row_grams import RowGradients, grouped_grams
from ntkdiag.kernel.streaming import gram_streaming
from ntkdiag.modes import measuring

ENGINES = ("auto", "streaming", "exact", "autograd")
# Engines that form every row gradient in full.
_BY_ROWS: dict[str, RowGradients] = {"exact": exact.row_gradients, "autograd": autograd.row_gradients}


@dataclass(frozen=True)
class Measured:
    """Result of an engine.

    Attributes:
        per_probe: [R, N, N] float64 on the CPU.
        engine: streaming, exact, autograd, or "streaming + exact" where some parameters needed the exact one.
        coverage: Parameter name → how its gradient was obtained.
        parameters: P, scalar parameters the kernel is over.
        groups: Group label → [R, N, N].
    """

    per_probe: Tensor
    engine: str
    coverage: dict[str, str]
    parameters: int
    groups: dict[str, Tensor] = field(default_factory=dict)


def run(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    directions: Directions,
    *,
    params: str | Sequence[str] | None = None,
    engine: str = "auto",
    memory: int | None = None,
    group: Callable[[str], str] | None = None,
    preconditioner: dict[str, Tensor] | None = None,
) -> Measured:
    """Gram matrices of J_iᵀ v by one engine; see `gram_of` for the other arguments.

    Args:
        directions: See `ntkdiag.kernel.directions`.

    Raises:
        InputError: shapes that do not fit, unknown engine, nothing to differentiate by.
        MeasurementError: samples are not independent of each other.
    """
    require_one_of("engine", engine, ENGINES)
    require_batch(inputs)
    with measuring(module):
        parameters = select_parameters(module, params)
        _require_real(parameters)
        scaling = checked(preconditioner, parameters)
        count = sum(p.numel() for p in parameters.values())
        if engine in _BY_ROWS:
            cotangents = _guarded_directions(module, inputs, directions)
            inverse = {name: 1 / p for name, p in scaling.items()}
            label = group or (lambda name: "")
            rows = _BY_ROWS[engine]
            grams = grouped_grams(rows, module, parameters, inputs, cotangents, label, memory, inverse)
            total = torch.stack(list(grams.values())).sum(0)
            return Measured(total, engine, dict.fromkeys(parameters, engine), count, grams if group else {})
        found = gram_streaming(
            module, parameters, inputs, directions, memory=memory, group=group, preconditioner=scaling
        )
        fallen_back = any(how.startswith("exact") for how in found.coverage.values())
        name = "streaming + exact" if fallen_back else "streaming"
        return Measured(found.per_probe, name, found.coverage, count, found.groups if group else {})


def require_batch(inputs: tuple[Tensor, ...]) -> int:
    """The number of samples in `inputs`.

    Raises:
        InputError: they are no tuple of tensors with one N of at least 1.
    """
    if not isinstance(inputs, (tuple, list)) or not all(isinstance(t, Tensor) for t in inputs) or not inputs:
        raise InputError("inputs", expected="a tuple of tensors [N, ...]", got=type(inputs).__name__)
    counts = [tensor.shape[0] if tensor.ndim else None for tensor in inputs]
    if counts[0] in (0, None) or len(set(counts)) > 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise InputError(
            "inputs", expected="tensors [N, ...] with one N of at least 1", got=f"shapes {shapes}"
        )
    return inputs[0].shape[0]


def _require_real(parameters: dict[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise InputError(
                name,
                expected="real floating-point parameters",
                got=str(parameter.dtype).removeprefix("torch."),
                fix="Choose others by {params}.",
                arguments={"params": None},
            )


def _guarded_directions(module: nn.Module, inputs: tuple[Tensor, ...], directions: Directions) -> Tensor:
    """Cotangents of all samples; two forwards must agree on what the last sample's output is."""
    output = checked_output(_output(module, inputs), inputs[0].shape[0])
    require_same(output[-1:], _output(module, tuple(tensor[-1:] for tensor in inputs)), "in the output")
    return directions(output, torch.arange(output.shape[0]))


def _output(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    def call() -> Tensor:
        out: Tensor = module(*(tensor.clone() for tensor in inputs))
        return out

    with MixingGuard(module):
        try:
            with torch.no_grad():
                return call()
        except RuntimeError:  # a network may take gradients of its own inside its forward
            with torch.enable_grad():
                return call().detach()
