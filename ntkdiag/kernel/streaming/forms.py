"""The two forms in which a rule hands over per-sample gradients of one use of a parameter.

`Outer` keeps the factors of a sum over tokens, so that the contraction may choose never to form the
gradient; `Dense` is the gradient itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outer:
    """G_i = Σ_t left_it ⊗ right_it, a matrix [p, q] a sample.

    Attributes:
        left: [N, T, p].
        right: [N, T, q].
        shape: The source's shape; p · q elements.
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
        rows: [N, *shape of the source], or, with `rowwise`, [N, *shape of a sample's own rows].
        rowwise: The source has rows of its own for each sample along `dim` (it was expanded over the batch, say);
            `rows` then holds for sample i the gradient of its rows only.
    """

    rows: Tensor
    rowwise: RowLayout | None = None


@dataclass(frozen=True)
class RowLayout:
    """The source's dimension `dim` is outer · N · inner, as in `Layout`; rows are [N, ..., outer, inner, ...]."""

    dim: int
    outer: int
    samples: int
    inner: int


@dataclass(frozen=True)
class Compressed:
    """Gradients that are zero outside few places; only inner products between samples are meaningful.

    Attributes:
        rows: [N, places], the same places for all samples.
        index: Where the places are in the flattened source, [places].
    """

    rows: Tensor
    index: Tensor


Form = Outer | Dense | Compressed
