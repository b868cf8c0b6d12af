"""The sample axis of a tensor: which dimension holds the samples, and in what order.

Networks fold the batch with windows, heads or frames, and put it into any dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.refusal import Unsupported


@dataclass(frozen=True)
class SampleAxis:
    """The dimension `dim` of a tensor, of size outer · samples · inner; outer and inner are 1 unless samples are folded."""

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
        plain = self.dim == 0 and self.outer == self.inner == 1 and tensor.shape[0] == self.samples
        moved = tensor if plain else self.first(tensor)
        keep = moved.shape[moved.ndim - trailing :] if trailing else torch.Size()
        return moved.reshape(self.samples, -1, *keep)

    def resized(self, samples: int) -> SampleAxis:
        """The same axis of a batch of another size."""
        return SampleAxis(self.dim, self.outer, samples, self.inner)
