"""The transpose of broadcasting, a sample at a time."""

from __future__ import annotations

from torch import Tensor

from ntkdiag.kernel.streaming.forms import Dense, RowLayout
from ntkdiag.kernel.streaming.layout import Layout


def reduce_to(full: Tensor, source: Tensor, layout: Layout) -> Dense:
    """Sum a gradient of the broadcast shape down to the source's shape, for each sample.

    Args:
        full: Gradient with respect to the source broadcast against the batch, shape of the operation's output.
        source: The parameter or derived tensor.
        layout: Where the samples are in `full`.

    Returns:
        Rows [N, *source.shape]; where the source has rows of its own for each sample, those rows only.
    """
    missing = full.ndim - source.ndim
    own = layout.dim - missing  # the source's dimension that meets the samples
    rowwise = own >= 0 and source.shape[own] > 1 and source.shape[own] == full.shape[layout.dim]
    rows = layout.first(full)  # [N, ..., outer, inner, ...]: the sample dimension is now two
    at = 1 + layout.dim
    summed = [
        1 + d if d < layout.dim else 2 + d
        for d in range(full.ndim)
        if d != layout.dim and _collapses(d, missing, source)
    ]
    if not rowwise:
        summed += [at, at + 1]
    rows = rows.sum(summed, keepdim=True) if summed else rows
    if rowwise:
        return Dense(rows, RowLayout(own, layout.outer, layout.samples, layout.inner))
    return Dense(rows.reshape(layout.samples, *source.shape))


def _collapses(dim: int, missing: int, source: Tensor) -> bool:
    return dim < missing or source.shape[dim - missing] == 1
