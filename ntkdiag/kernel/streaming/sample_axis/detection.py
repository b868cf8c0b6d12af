"""Finding the sample axis of a tensor: the tensor of all samples is compared with that of a few of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.kernel.guards import relative_difference
from ntkdiag.kernel.precision import TF32, Precision, computed_in
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis

# Entries of a dimension that are kept of each tensor of the rehearsal.
KEPT = 8

# Differences, relative to the largest entry, below which two axes explain a tensor equally well; tuned here: by how much
# sums over batches of different sizes differ.
SLACK: dict[Precision, float] = {
    torch.float64: 1e-12, torch.float32: 1e-5, TF32: 2e-3, torch.float16: 2e-3, torch.bfloat16: 2e-2
}  # fmt: skip


@dataclass(frozen=True)
class ReferenceSlices:
    """What is kept of a tensor of the rehearsal, to compare with: its shape, and two narrow slices of it.

    Attributes:
        shape: The tensor's shape.
        columns: Its first few entries along the last dimension.
        rows: Its first few entries along the last dimension but one, for samples in the last; None up to two dimensions.
    """

    shape: torch.Size
    columns: Tensor
    rows: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor) -> ReferenceSlices:
        tensor = tensor.detach()
        if tensor.ndim <= 2:
            return cls(tensor.shape, tensor.clone(), None)
        return cls(tensor.shape, tensor[..., :KEPT].clone(), tensor[..., :KEPT, :].clone())

    def beside(self, tensor: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """The slice that is complete along `dim`, and the same slice of `tensor`."""
        if self.rows is None:
            return self.columns, tensor
        if dim < tensor.ndim - 1:
            return self.columns, tensor[..., :KEPT]
        return self.rows, tensor[..., :KEPT, :]


@dataclass(frozen=True)
class AxisCandidate:
    """A axis, and how far it is from explaining a tensor: the largest difference, relative to the largest entry."""

    axis: SampleAxis
    difference: float


def candidate_axes(
    tensor: Tensor, reference: ReferenceSlices, chosen: Tensor, samples: int
) -> list[AxisCandidate]:
    """Sample axes that explain a tensor about equally well.

    Args:
        tensor: Computed from all N samples.
        reference: The same tensor computed from a few samples.
        chosen: Positions [M] of the few samples, M ≠ N.
        samples: N.

    Returns:
        The best candidate first; several where the values do not tell them apart; none if the shapes admit none.
    """
    grown = [d for d, (a, b) in enumerate(zip(tensor.shape, reference.shape, strict=False)) if a != b]
    if tensor.ndim != len(reference.shape) or len(grown) != 1:
        return []
    dim = grown[0]
    folded, rest = divmod(tensor.shape[dim], samples)
    if rest or reference.shape[dim] != folded * len(chosen):
        return []
    axes = [SampleAxis(dim, outer, samples, folded // outer) for outer in _divisors(folded)]
    return compared(axes, tensor, reference, chosen)


def compared(
    axes: list[SampleAxis], tensor: Tensor, reference: ReferenceSlices, chosen: Tensor
) -> list[AxisCandidate]:
    """The axis that leaves the smallest difference, and those that are not clearly worse; ties keep their order."""
    candidates = [AxisCandidate(axis, _difference(tensor, reference, axis, chosen)) for axis in axes]
    candidates.sort(key=lambda candidate: candidate.difference)
    limit = 4 * candidates[0].difference + SLACK.get(computed_in(tensor), 1e-5)
    return [candidates[0], *(each for each in candidates[1:] if not each.difference > limit)]


def _difference(tensor: Tensor, reference: ReferenceSlices, axis: SampleAxis, chosen: Tensor) -> float:
    """Largest difference over largest entry, between the chosen samples of `tensor` and the reference."""
    kept, narrow = reference.beside(tensor.detach(), axis.dim)
    samples = axis.first(narrow)
    seen = torch.stack([samples[int(i)] for i in chosen])  # a gather would copy all samples first
    return relative_difference(seen, axis.resized(len(chosen)).first(kept))


def _divisors(count: int) -> Iterator[int]:
    """Sample-major first, then sample-minor, then the candidates between."""
    yield 1
    if count > 1:
        yield count
        yield from (d for d in range(2, count) if count % d == 0)
