"""Plain autograd's results for a few samples, which the check compares the engines with."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.errors import MeasurementError, listed
from ntkdiag.kernel.autograd import Keeping, PlainAutograd
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.sharded import gathering_of

Gradients = list[dict[str, Tensor | None]]


@dataclass(frozen=True)
class Truth:
    """Results for k samples, each alone in its batch, and the first direction.

    Attributes:
        outputs: [k, *out].
        directions: [k, *out].
        products: Parameter name → g_i · g_j, [k, k] float64 on the CPU.
        unreached: Parameters that autograd passes no gradient to.
    """

    outputs: Tensor
    directions: Tensor
    products: dict[str, Tensor]
    unreached: list[str]


def truth_of(problem: Problem, positions: Tensor) -> Truth:
    """Run plain autograd on the samples at these positions.

    Raises:
        MeasurementError: a gradient is not finite, or no backward is possible.
    """
    outputs: list[Tensor] = []
    gradients: Gradients = []
    vectors: dict[int, Tensor] = {}
    with PlainAutograd(problem.module, problem.parameters, part_kept(problem)) as plain:
        for position in positions:

            def direction(output: Tensor, picked: Tensor = position[None]) -> Tensor:
                vectors[int(picked)] = problem.directions(output, picked)[0]
                return vectors[int(picked)]

            output, found = plain.pull(problem.at(position[None]), direction)
            outputs.append(output)
            gradients.append(measured(problem, found))
    entries = inner_products(problem, gradients, outputs[0].device)
    require_finite([name for name, each in entries.items() if not torch.isfinite(each).all()])
    unreached = [name for name in entries if all(found[name] is None for found in gradients)]
    return Truth(torch.cat(outputs), torch.cat(list(vectors.values())), entries, unreached)


def part_kept(problem: Problem) -> Keeping | None:
    """What a process keeps of autograd's gradients for the first direction, where the network is sharded over processes.

    A process by itself keeps all of them; of a network that no process holds whole, each keeps its part of every gradient,
    or of its sketch.
    """
    gathering = gathering_of(problem.module)
    if gathering is None or gathering.whole:
        return None
    share_of = gathering.processes.share_of

    def kept(name: str, gradient: Tensor) -> Tensor:
        row = problem.measured(name, gradient[None], 0)[0]
        return row[share_of(len(row))].clone()

    return kept


def measured(problem: Problem, gradients: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """The gradients of one sample for the first direction as the kernel is made of them: sketched, where it is."""
    if problem.sketch is None or part_kept(problem) is not None:
        return gradients
    return {
        name: None if found is None else problem.measured(name, found[None], 0)[0]
        for name, found in gradients.items()
    }


def require_finite(bad: list[str]) -> None:
    """Raise a MeasurementError if there are parameters whose gradients are not finite."""
    if bad:
        raise MeasurementError(
            f"network: expected finite gradients; got NaN or infinity in those of {listed(bad)}. Look for a root, a norm or "
            "a logarithm at zero."
        )


def require_reached(unreached: list[str], parameters: Sized) -> None:
    """Raise a MeasurementError if autograd passes no gradient to any of the parameters."""
    if len(unreached) == len(parameters):
        raise MeasurementError(
            "network: expected an output with gradients to its parameters; got none to any of "
            f"{listed(unreached)}. Look for torch.no_grad, torch.inference_mode or detach in the forward, or choose "
            "parameters that the output depends on."
        )


def inner_products(problem: Problem, gradients: Gradients, device: torch.device) -> dict[str, Tensor]:
    """Parameter name → g_i · scale · g_j of k gradients, or of what processes keep of them, [k, k] float64 on the CPU."""
    gathering, scales = gathering_of(problem.module), problem.inverse_preconditioner
    if gathering is None or gathering.whole:
        return _own_products(gradients, scales, device)
    share_of = gathering.processes.share_of
    flat = {name: scale.flatten() for name, scale in scales.items()}
    parts = _own_products(gradients, {n: scale[share_of(len(scale))] for n, scale in flat.items()}, device)
    total = gathering.processes.total("products of autograd's gradients", torch.stack([*parts.values()]))
    return dict(zip(parts, total, strict=True))


def _own_products(gradients: Gradients, scales: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """`inner_products` of what this process has."""

    def of(name: str, dtype: torch.dtype) -> Tensor:
        return _products([found[name] for found in gradients], scales.get(name), dtype).to(device)

    names = list(gradients[0])
    values = torch.stack([of(name, torch.float32) for name in names]).cpu()
    # float32 takes half the time of float64, and is enough unless it overflows or underflows
    in_range = (values.abs() > 1e-30) & (values.abs() < 1e30)
    fine = in_range.flatten(1).all(1).tolist()
    fine = [enough or _are_zero(name, gradients) for name, enough in zip(names, fine, strict=True)]
    return {
        name: value if enough else of(name, torch.float64).cpu()
        for name, value, enough in zip(names, values, fine, strict=True)
    }


def _are_zero(name: str, gradients: Gradients) -> bool:
    """Whether a parameter has no gradient but zeros, as most have behind a layer of zeros."""
    return not any(found is not None and found.any() for found in (each[name] for each in gradients))


def _products(rows: list[Tensor | None], scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """row_i · scale · row_j, [n, n] float64, computed at least in `dtype`; None is a row of zeros."""
    flat = [None if r is None else r.detach().flatten().to(torch.promote_types(r.dtype, dtype)) for r in rows]
    some = next((row for row in flat if row is not None), None)
    found = torch.zeros(
        len(rows), len(rows), dtype=torch.float64, device=None if some is None else some.device
    )
    for i, left in enumerate(flat):
        for j, right in enumerate(flat[: i + 1]):
            if left is not None and right is not None:
                scaled = left if scale is None else left * scale.flatten()
                found[i, j] = found[j, i] = torch.dot(scaled, right)
    return found
