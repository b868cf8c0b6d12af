"""The forms in which a rule hands over per-sample gradients of one use of a parameter.

`Outer` keeps the factors of a sum over tokens, so that the contraction may choose never to form the
gradient; `Dense` is the gradient itself; `Compressed` keeps the few places of a table that samples touch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


@dataclass(frozen=True)
class Outer:
    """G_i = Σ_t left_it ⊗ right_it, a matrix [p, q] a sample; p · q elements are those of the source in order.

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
        rows: [N, *shape of the source], or, with `own`, the part of it that a sample has for itself.
        own: Set where the source has rows of its own for each sample (it was expanded over the batch, say): where they are.
            `rows` is then [N, ..., outer, inner, ...], as `SampleAxis.first` arranges the source.
    """

    rows: Tensor
    own: SampleAxis | None = None


@dataclass(frozen=True)
class Compressed:
    """Gradients that are zero outside few places.

    Attributes:
        rows: [N, places], the same places for all samples.
        index: Where the places are in the flattened source, [places].
        size: Elements of the source.
    """

    rows: Tensor
    index: Tensor
    size: int

    def dense(self) -> Dense:
        """The gradients themselves, [N, size]."""
        rows = self.rows.new_zeros(self.rows.shape[0], self.size)
        rows[:, self.index] = self.rows
        return Dense(rows)


PerSampleGradient = Outer | Dense | Compressed


def as_dense(form: PerSampleGradient) -> Dense:
    """Any form as the gradient itself."""
    return form if isinstance(form, Dense) else form.dense()
