"""Per-sample gradients G_i of one use of a parameter, in four forms.

`Outer` keeps the factors of a sum over tokens, so that the gradient need not be formed to be contracted; `Dense` is the
gradient itself; `Compressed` keeps the few rows of a table that samples touch; `Unformed` is linear in the channels of a
factor, so that these can be sketched before the gradient is formed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


@dataclass(frozen=True)
class Outer:
    """G_i = Σ_t left_it ⊗ right_it, a matrix [p, q] for each sample; its elements are those of the parameter in order.

    Attributes:
        left: [N, T, p].
        right: [N, T, q].
    """

    left: Tensor
    right: Tensor

    def dense(self) -> Dense:
        """The gradients themselves, [N, p, q]."""
        return Dense(self.left.mT @ self.right)


@dataclass(frozen=True)
class Dense:
    """G_i in full.

    Attributes:
        rows: [N, *shape of the parameter]; with `own`, only those rows of it that belong to the sample.
        own: The parameter's sample axis, where it has rows of its own for each sample (it was expanded over the batch, say).
            `rows` is then [N, ..., outer, inner, ...], as `SampleAxis.first` arranges the parameter.
    """

    rows: Tensor
    own: SampleAxis | None = None


@dataclass(frozen=True)
class Compressed:
    """Gradients that are zero except at few elements, the same ones for all samples.

    Attributes:
        rows: [N, elements].
        index: Positions of these elements in the flattened parameter, [elements].
        size: Number of elements of the parameter.
    """

    rows: Tensor
    index: Tensor
    size: int

    def dense(self) -> Dense:
        """The gradients themselves, [N, size]."""
        rows = self.rows.new_zeros(self.rows.shape[0], self.size)
        rows[:, self.index] = self.rows
        return Dense(rows)

    def by_rows(self, width: int) -> tuple[Tensor, Tensor] | None:
        """Whole rows of the table: their numbers [t] and gradients [N, t, width]; None if there are parts of rows."""
        if self.index.numel() % width:
            return None
        table = self.index.reshape(-1, width)
        touched = table[:, 0] // width
        if not torch.equal(table, touched[:, None] * width + torch.arange(width, device=table.device)):
            return None
        return touched, self.rows.reshape(len(self.rows), -1, width)


@dataclass(frozen=True)
class Unformed:
    """G_i = form(left_i, right_i), where each output channel of `form` is linear in the same channel of `left` alone.

    Attributes:
        left: [N, T, p, *positions].
        right: [N, T, channels, *positions].
        form: [N, T, c, *positions], `right` → [N, c, *rest of the parameter's shape], for any number of channels c.
        size: Number of elements of the parameter.
    """

    left: Tensor
    right: Tensor
    form: Callable[[Tensor, Tensor], Tensor]
    size: int

    def dense(self) -> Dense:
        """The gradients themselves, [N, p, *rest]."""
        return Dense(self.form(self.left, self.right))


PerSampleGradient = Outer | Dense | Compressed | Unformed


def as_dense(gradient: PerSampleGradient) -> Dense:
    """The gradient in full, from any form."""
    return gradient if isinstance(gradient, Dense) else gradient.dense()
