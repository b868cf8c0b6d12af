"""What the products of an operator are compared with: plain autograd for the first and the last sample, each alone.

Jᵀ v is compared parameter by parameter, with a random v_i for each of the two samples; how J u is, see `probes.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.kernel.agreement import Tolerance, differs, tolerance_of
from ntkdiag.kernel.directions import checked_output
from ntkdiag.kernel.guards import guarded_output, require_same
from ntkdiag.kernel.operator.network import Network, Tangent
from ntkdiag.kernel.operator.selection import kept_outputs
from ntkdiag.kernel.truth import require_finite, require_reached
from ntkdiag.modes import measuring
from ntkdiag.randomness import generator

# (output of one sample [1, *out], its position) → v [1, *out]
Direction = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Reference:
    """Results for k samples: the first and the last, or the only one.

    Attributes:
        positions: Of these samples, [k].
        outputs: Of each alone in its batch, [k, *out].
        vectors: v, [k, *out]; zero at outputs that are not kept.
        gradients: J_iᵀ v_i, one for each sample; or one alone, their sum; or none yet.
        tolerance: What counts as rounding.
    """

    positions: Tensor
    outputs: Tensor
    vectors: Tensor
    gradients: Sequence[Tangent]
    tolerance: Tolerance

    @property
    def size(self) -> float:
        """Norm of all gradients together."""
        return math.hypot(*(norm(g) for each in self.gradients for g in each))

    def with_sum(self, pulled: Tangent) -> Reference:
        """The same where no gradients are known but a sum of them."""
        return replace(self, gradients=[pulled])

    def fault_of_pull(self, pulled: Tangent) -> str | None:
        """How Jᵀ v of the vectors differs from the sum of the gradients, or None if by rounding alone."""
        gaps, norms = [], []
        for found, *each in zip(pulled, *self.gradients, strict=True):
            size = math.hypot(*(norm(g) for g in each))
            gap = norm(found.double() - torch.stack(each).double().sum(0))
            gaps.append(gap * max(gap, size))
            norms.append(size**2)
        differences, sizes = torch.tensor([gaps, norms], dtype=torch.float64)[..., None]
        excesses = self.tolerance.excesses(differences, sizes, sizes.sum(0))
        return next((differs(share) for share in excesses if share is not None), None)

    def fault_of_product(self, products: Tensor, columns: Reference, scales: Tangent) -> str | None:
        """How v_iᵀ J_i P⁻¹ Jᵀ v differs from what the gradients make of it, or None if by rounding alone.

        Args:
            products: The numbers in question, [k].
            columns: The reference of Jᵀ v.
            scales: P, a tensor for each parameter; empty for none.
        """
        expected, squares = torch.zeros(2, len(self.positions), dtype=torch.float64)
        other = 0.0
        for p, (rows, each) in enumerate(
            zip(zip(*self.gradients, strict=True), zip(*columns.gradients, strict=True), strict=True)
        ):
            scaled = [g.double() / scales[p].double() if scales else g.double() for g in rows]
            right = torch.stack(each).double().sum(0)
            expected += torch.tensor([inner(g, right) for g in scaled], dtype=torch.float64)
            squares += torch.tensor(
                [inner(a, b) for a, b in zip(scaled, rows, strict=True)], dtype=torch.float64
            )
            other += sum(inner(g / scales[p] if scales else g, g) for g in each)
        gap = (products.cpu().double() - expected).abs()[:, None]
        sizes = (squares * other).sqrt()[:, None]
        excesses = self.tolerance.excesses(gap, sizes, torch.zeros(1))
        return next((differs(share) for share in excesses if share is not None), None)


def reference_for(network: Network, outputs: Tensor | None = None, *, check: bool = True) -> Reference:
    """Plain autograd's results for the first and the last sample of a network.

    Args:
        network: What is measured.
        outputs: Boolean mask [*out] of the outputs that matter; None takes all.
        check: Whether to run backwards; without them there are no gradients.

    Raises:
        InputError: the module does not return one row for each sample, or rows without numbers.
        MeasurementError: the output depends on the batch, has no gradient to any parameter, or one that is not finite.
    """
    positions = torch.tensor(sorted({0, len(network.everything) - 1}))
    direction = _random_directions(outputs)
    both = _output(network, positions.flip(0)).flip(0)
    if check:
        alone, gradients = _by_autograd(network, direction, positions)
    else:
        alone, gradients = torch.cat([_output(network, position) for position in positions.split(1)]), []
    require_same(both, alone, "in the output")
    vectors = torch.cat([direction(alone[k : k + 1], int(position)) for k, position in enumerate(positions)])
    tolerance = tolerance_of((*network.leaves.values(), *network.inputs, alone))
    return Reference(positions, alone, vectors, gradients, tolerance)


def _output(network: Network, positions: Tensor) -> Tensor:
    with measuring(network.module):
        return checked_output(guarded_output(network.module, network.samples(positions)), len(positions))


def _by_autograd(network: Network, direction: Direction, positions: Tensor) -> tuple[Tensor, list[Tangent]]:
    """Outputs [k, *out] and gradients of samples, each alone in its batch."""
    with network.as_it_stands() as gradient:
        results = [gradient(p, lambda output, p=p: direction(output, int(p))) for p in positions.split(1)]  # type: ignore[misc]
    found = [gradients for _, gradients in results]
    require_reached([n for n in network.leaves if all(each[n] is None for each in found)], network.leaves)
    present = [(name, g) for each in found for name, g in each.items() if g is not None]
    require_finite(list(dict.fromkeys(name for name, g in present if not math.isfinite(norm(g)))))
    return torch.cat([output for output, _ in results]), [network.filled(each) for each in found]


def _random_directions(mask: Tensor | None) -> Direction:
    """Standard normal vectors, zero at outputs that are not kept."""

    def direction(output: Tensor, position: int) -> Tensor:
        if not output.numel():
            raise InputError(
                "module output", expected="numbers in each row", got=f"shape {tuple(output.shape)}"
            )
        kept = kept_outputs(mask, output.shape[1:])
        vector = torch.zeros(output.numel(), dtype=output.dtype)
        vector[kept] = torch.randn(len(kept), generator=generator(0, position)).to(output.dtype)
        return vector.reshape(output.shape).to(output.device)

    return direction


def norm(tensor: Tensor) -> float:
    """Euclidean norm, in float64."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def inner(a: Tensor, b: Tensor) -> float:
    """Sum of products, in float64."""
    return float((a.double() * b.double()).sum())
