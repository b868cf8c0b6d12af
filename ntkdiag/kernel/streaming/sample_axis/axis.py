"""Where the samples are in a tensor: which dimension holds them, and in what order.

Networks fold the batch with windows, heads or frames and put it in any place. The axis of each tensor is
found by comparing the forward of all samples with a second forward of a few of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.kernel.guards import relative_difference
from ntkdiag.kernel.streaming.refusal import Unsupported

# Entries of a dimension that are kept of each tensor of the second forward, to compare by.
KEPT = 8

# Differences, relative to the largest entry, below which two candidates of a tensor explain it equally well; tuned
# here: what
# sums over batches of other sizes differ by.
SLACK = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@dataclass(frozen=True)
class SampleAxis:
    """Samples in dimension `dim`, whose size is outer · samples · inner."""

    dim: int
    outer: int
    samples: int
    inner: int

    def first(self, tensor: Tensor) -> Tensor:
        """Bring samples to the front: [..., outer·N·inner, ...] → [N, ..., outer, inner, ...] (other dimensions in order).

        Raises:
            Unsupported: the tensor has no such dimension.
        """
        if self.dim >= tensor.ndim or tensor.shape[self.dim] != self.outer * self.samples * self.inner:
            raise Unsupported("an operand that does not hold the samples where the output does")
        split = tensor.unflatten(self.dim, (self.outer, self.samples, self.inner))
        return split.movedim(self.dim + 1, 0)

    def rows(self, tensor: Tensor, trailing: int) -> Tensor:
        """[N, k, *last `trailing` dimensions]: all other dimensions flattened into one.

        Raises:
            Unsupported: the samples are in one of the trailing dimensions.
        """
        if self.dim >= tensor.ndim - trailing:
            raise Unsupported("the samples are in a dimension that the operation works on")
        moved = self.first(tensor)
        keep = moved.shape[moved.ndim - trailing :] if trailing else torch.Size()
        return moved.reshape(self.samples, -1, *keep)

    def of(self, samples: int) -> SampleAxis:
        """The same for another number of samples."""
        return SampleAxis(self.dim, self.outer, samples, self.inner)


@dataclass(frozen=True)
class ReferenceSlices:
    """What is kept of a tensor of the second forward: its shape, and two narrow copies of it.

    Attributes:
        shape: Of the tensor.
        ends: A few entries of the last dimension.
        rows: A few entries of the last but one, for a tensor whose samples are in the last; None up to two dimensions.
    """

    shape: torch.Size
    ends: Tensor
    rows: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor) -> ReferenceSlices:
        tensor = tensor.detach()
        if tensor.ndim <= 2:
            return cls(tensor.shape, tensor.clone(), None)
        return cls(tensor.shape, tensor[..., :KEPT].clone(), tensor[..., :KEPT, :].clone())

    def beside(self, tensor: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """The copy that is whole along `dim`, and the same part of `tensor`."""
        if self.rows is None:
            return self.ends, tensor
        if dim < tensor.ndim - 1:
            return self.ends, tensor[..., :KEPT]
        return self.rows, tensor[..., :KEPT, :]


@dataclass(frozen=True)
class AxisCandidate:
    """A axis, and how far it is from explaining a tensor: the largest difference, relative to the largest entry."""

    axis: SampleAxis
    difference: float


def read(tensor: Tensor, few: ReferenceSlices, chosen: Tensor, samples: int) -> list[AxisCandidate]:
    """Layouts that explain `tensor` about equally well, given its counterpart of a forward over samples `chosen`.

    Args:
        tensor: From the forward over all N samples.
        few: The fingerprint of its counterpart.
        chosen: Indices [M] of the samples in the second forward, M ≠ N.
        samples: N.

    Returns:
        The best candidate first; more than one where activations do not tell them apart; none if the shapes fit no axis.
    """
    grown = [d for d, (a, b) in enumerate(zip(tensor.shape, few.shape, strict=False)) if a != b]
    if tensor.ndim != len(few.shape) or len(grown) != 1:
        return []
    dim = grown[0]
    folded, rest = divmod(tensor.shape[dim], samples)
    if rest or few.shape[dim] != folded * len(chosen):
        return []
    layouts = (SampleAxis(dim, outer, samples, folded // outer) for outer in _divisors(folded))
    return plausible(
        [AxisCandidate(axis, difference(tensor, few, axis, chosen)) for axis in layouts], tensor.dtype
    )


def plausible(candidates: list[AxisCandidate], dtype: torch.dtype) -> list[AxisCandidate]:
    """The best candidate, and those that are not clearly worse; ties keep their order."""
    ordered = sorted(candidates, key=lambda candidate: candidate.difference)
    limit = 4 * ordered[0].difference + SLACK.get(dtype, 1e-5)
    return [ordered[0], *(candidate for candidate in ordered[1:] if not candidate.difference > limit)]


def difference(tensor: Tensor, few: ReferenceSlices, axis: SampleAxis, chosen: Tensor) -> float:
    """Largest difference over largest size, between the chosen samples and the second forward."""
    kept, narrow = few.beside(tensor.detach(), axis.dim)
    samples = axis.first(narrow)
    seen = torch.stack([samples[int(i)] for i in chosen])  # a gather would copy all samples first
    return relative_difference(seen, axis.of(len(chosen)).first(kept))


def _divisors(count: int) -> Iterator[int]:
    """Sample-major first, then sample-minor, then the candidates between."""
    yield 1
    if count > 1:
        yield count
        yield from (d for d in range(2, count) if count % d == 0)
