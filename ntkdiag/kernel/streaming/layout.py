"""Where the samples are in a tensor: which dimension holds them, and in what order.

Networks fold the batch with windows, heads or frames and put it in any place. The layout of each tensor is
found by comparing the forward of all samples with a second forward of a few of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Entries of the last dimension that are kept of each tensor of the second forward, to compare by.
KEPT = 8


@dataclass(frozen=True)
class Layout:
    """Samples in dimension `dim`, whose size is outer · samples · inner."""

    dim: int
    outer: int
    samples: int
    inner: int

    def first(self, tensor: Tensor) -> Tensor:
        """Bring samples to the front: [..., outer·N·inner, ...] → [N, outer, inner, ...] (other dimensions in order).

        The split dimension is kept as two, in its place among the others.
        """
        split = tensor.unflatten(self.dim, (self.outer, self.samples, self.inner))
        return split.movedim(self.dim + 1, 0)

    def rows(self, tensor: Tensor, trailing: int) -> Tensor:
        """[N, k, *last `trailing` dimensions]: all other dimensions flattened into one."""
        moved = self.first(tensor)
        keep = moved.shape[moved.ndim - trailing :] if trailing else torch.Size()
        return moved.reshape(self.samples, -1, *keep)


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a tensor of the second forward: its shape and a narrow copy."""

    shape: torch.Size
    values: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Fingerprint:
        return cls(tensor.shape, _narrow(tensor.detach()).clone())


def find_layout(
    tensor: Tensor, few: Fingerprint, chosen: Tensor, samples: int
) -> tuple[Layout | None, float]:
    """The layout of `tensor`, given the same tensor of a forward over samples `chosen`.

    Args:
        tensor: From the forward over all N samples.
        few: The fingerprint of its counterpart.
        chosen: Indices [M] of the samples in the second forward, M ≠ N.
        samples: N.

    Returns:
        The layout and the largest relative difference under it; (None, inf) when the shapes fit no layout.
    """
    wrong = [d for d, (a, b) in enumerate(zip(tensor.shape, few.shape, strict=False)) if a != b]
    if tensor.ndim != len(few.shape) or len(wrong) != 1:
        return None, float("inf")
    dim, few_samples = wrong[0], len(chosen)
    folded, rest = divmod(tensor.shape[dim], samples)
    if rest or few.shape[dim] != folded * few_samples:
        return None, float("inf")
    best: tuple[Layout | None, float] = (None, float("inf"))
    for outer in _divisors(folded):
        layout = Layout(dim, outer, samples, folded // outer)
        difference = _difference(tensor, few, layout, chosen)
        if difference < best[1] / 2 or best[0] is None:  # a tie keeps the earlier, sample-major reading
            best = (layout, difference)
        if best[1] < 1e-6:
            break
    return best


def _divisors(count: int) -> list[int]:
    """Sample-major first, then sample-minor, then the readings between."""
    between = [d for d in range(2, count) if count % d == 0]
    return [1] if count == 1 else [1, count, *between]


def _narrow(tensor: Tensor) -> Tensor:
    return tensor[..., :KEPT] if tensor.ndim > 2 else tensor


def _difference(tensor: Tensor, few: Fingerprint, layout: Layout, chosen: Tensor) -> float:
    """Largest difference over largest size, between the chosen samples and the second forward."""
    narrow = _narrow(tensor.detach())
    if narrow.shape[layout.dim] != tensor.shape[layout.dim]:  # the samples are in the last dimension
        return 0.0
    samples = layout.first(narrow)
    seen = torch.stack([samples[int(i)] for i in chosen])  # a gather would copy all samples first
    counterpart = Layout(layout.dim, layout.outer, len(chosen), layout.inner).first(few.values)
    size = torch.maximum(seen.abs().amax(), counterpart.abs().amax())
    if not size > 0:
        return 0.0
    return float((seen - counterpart).abs().amax() / size)
