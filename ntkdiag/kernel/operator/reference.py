"""What the products of an operator are compared with: plain autograd for the first and the last sample, each alone.

Jᵀ v is compared parameter by parameter, with a random v_i for each of the two samples; how J u is, see `probes.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.kernel.agreement import Tolerance, differs, tolerance_of
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

    @cached_property
    def norms(self) -> Tensor:
        """|g| of each gradient and parameter, [gradients, parameters] float64."""
        return torch.tensor([[norm(g) for g in each] for each in self.gradients], dtype=torch.float64)

    @cached_property
    def sums(self) -> Tangent:
        """Jᵀ v, the sum of the gradients."""
        return tuple(reduce(torch.add, each) for each in zip(*self.gradients, strict=True))

    def with_sum(self, pulled: Tangent) -> Reference:
        """The same where no gradients are known but a sum of them."""
        return replace(self, gradients=[pulled])

    def fault_of_pull(self, pulled: Tangent) -> str | None:
        """How Jᵀ v of the vectors differs from the sum of the gradients, or None if by rounding alone."""
        gaps = [norm(found - total) for found, total in zip(pulled, self.sums, strict=True)]
        gap = torch.tensor(gaps, dtype=torch.float64)
        squares = self.norms.square().sum(0)
        # what the error changes in the kernel; torch.maximum keeps NaN
        changes = gap * torch.maximum(gap, squares.sqrt())
        excesses = self.tolerance.excesses(changes[:, None], squares[:, None], squares.sum())
        return next((differs(share) for share in excesses if share is not None), None)

    def fault_of_product(self, products: Tensor, columns: Reference, scales: Tangent) -> str | None:
        """How v_iᵀ J_i P⁻¹ Jᵀ v differs from what the gradients make of it, or None if by rounding alone.

        Args:
            products: The numbers in question, [k].
            columns: The reference of Jᵀ v.
            scales: P, a tensor for each parameter; empty for none.
        """
        moved = tuple(g / p for g, p in zip(columns.sums, scales, strict=True)) if scales else columns.sums
        expected = [sum(inner(g, u) for g, u in zip(each, moved, strict=True)) for each in self.gradients]
        gap = (products.cpu().double() - torch.tensor(expected, dtype=torch.float64)).abs()
        sizes = self.sizes_of_products(columns, scales)
        excesses = self.tolerance.excesses(gap[:, None], sizes[:, None], torch.zeros(()))
        return next((differs(share) for share in excesses if share is not None), None)

    def sizes_of_products(self, columns: Reference, scales: Tangent) -> Tensor:
        """Bounds of |v_iᵀ J_i P⁻¹ Jᵀ v| by the gradients' norms, [k]; the arguments are those of `fault_of_product`."""
        return self._squares(scales).sqrt() * columns._squares(scales).sum().sqrt()

    def _squares(self, scales: Tangent) -> Tensor:
        """gᵀ P⁻¹ g of each gradient g, [gradients]."""
        if not scales:
            return self.norms.square().sum(1)
        found = [sum(inner(g / p, g) for g, p in zip(each, scales, strict=True)) for each in self.gradients]
        return torch.tensor(found, dtype=torch.float64)


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
        return guarded_output(network.module, network.samples(positions))


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
    """Euclidean norm."""
    found = float(torch.linalg.vector_norm(tensor, dtype=_wide(tensor)))
    if 1e-15 < found < 1e15:  # its square does not overflow or underflow in float32
        return found
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def inner(a: Tensor, b: Tensor) -> float:
    """Sum of products."""
    a, b = a.reshape(-1), b.reshape(-1)
    wide = torch.promote_types(_wide(a), _wide(b))
    found = float(torch.dot(a.to(wide), b.to(wide)))
    return found if 1e-30 < abs(found) < 1e30 else float(torch.dot(a.double(), b.double()))


def _wide(tensor: Tensor) -> torch.dtype:
    """float32 takes half the time of float64, and less is not enough."""
    return torch.promote_types(tensor.dtype, torch.float32)
