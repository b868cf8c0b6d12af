"""A cheaper comparison before the full one: one backward of plain autograd for the first and the last sample together.

It gives s = c₁g₁ + c₂g₂ for each parameter, and |s|² must be what the engine's products g_i·g_j make of it. Where the
numbers differ, or cannot be had, the full comparison decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.errors import NtkdiagError
from ntkdiag.kernel.agreement import Tolerance, tolerance_of
from ntkdiag.kernel.autograd import PlainAutograd
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.truth import inner_products, measured, part_kept

# Weight of the last sample's gradient beside the first one's, so that samples in another order make a difference.
_UNEQUAL = 0.5
# Largest weight of one sample in units of the other's: half precision has no room for more.
_LARGEST = 100.0


@dataclass(frozen=True)
class Pair:
    """Results for two samples in a batch of two.

    Attributes:
        outputs: Of the first and of the last sample, [2, *out].
        weights: c, [2] float64.
        squares: Parameter name → |s|², float64.
        unreached: Parameters that autograd passes no gradient to.
        tolerance: What counts as rounding.
    """

    outputs: Tensor
    weights: Tensor
    squares: dict[str, Tensor]
    unreached: list[str]
    tolerance: Tolerance

    def agrees(self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
        """Whether products come to the expected |s|² with an error that is rounding even in the smallest of them.

        Args:
            found: Name → an engine's products [2, 2]; a missing name has the gradient zero.
            expected: Name → |s|².
        """
        nothing = torch.zeros(2, 2, dtype=torch.float64)
        seen = torch.stack([found[name].double().cpu() if name in found else nothing for name in expected])
        if not seen.isfinite().all():
            return False
        weighted = seen * self.weights[:, None] * self.weights
        smallest = weighted.diagonal(dim1=1, dim2=2).amin(1)
        gap = (weighted.sum((1, 2)) - torch.stack(list(expected.values()))).abs()
        kernel = weighted.sum(0).diagonal().amin()
        return bool((gap <= self.tolerance.of_parameter * smallest + self.tolerance.of_kernel * kernel).all())


def pair_of(problem: Problem, found: Iterable[Tensor]) -> Pair | None:
    """Run plain autograd on the first and the last sample together, in the other order.

    Args:
        problem: What is measured; more than two samples.
        found: The engine's products [2, 2] of each parameter, by which the two samples are weighed against each other.

    Returns:
        None where it fails.
    """
    weights = _weights(found)
    ends = torch.tensor([problem.samples - 1, 0])

    def direction(output: Tensor) -> Tensor:
        scale = weights.flip(0).to(output).reshape(2, *(1,) * (output.ndim - 1))
        return problem.directions(output, ends)[0] * scale

    try:
        with PlainAutograd(problem.module, problem.parameters, part_kept(problem)) as plain:
            output, gradients = plain.pull(problem.at(ends), direction)
    except (NtkdiagError, RuntimeError):  # if the full comparison fails as well, it says so
        return None
    products = inner_products(problem, [measured(problem, gradients)], output.device)
    return Pair(
        output.flip(0),
        weights,
        {name: product[0, 0] for name, product in products.items()},
        [name for name, gradient in gradients.items() if gradient is None],
        tolerance_of((*problem.parameters.values(), *problem.inputs, output)),
    )


def _weights(found: Iterable[Tensor]) -> Tensor:
    """Such that c_i|g_i| of all parameters are about the same size."""
    totals = torch.stack([entries.double().cpu().diagonal() for entries in found]).sum(0)
    if not bool((totals > 0).all() and totals.isfinite().all()):
        totals = torch.ones(2, dtype=torch.float64)
    weights = totals.amin().sqrt() / totals.sqrt()
    return weights.clamp(min=1 / _LARGEST) * torch.tensor([1.0, _UNEQUAL], dtype=torch.float64)
