"""The transpose of broadcasting, a sample at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.gradients import Dense
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


def reduce_to(full: Tensor, source: Tensor, axis: SampleAxis) -> Dense:
    """Sum a gradient of the broadcast shape down to the source's shape, for each sample.

    Args:
        full: Gradient with respect to the source broadcast against the batch, shape of the operation's output.
        source: The parameter or derived tensor.
        axis: Where the samples are in `full`.

    Returns:
        Rows over the source's shape; where the source has rows of its own for each sample, those rows only.
    """
    return summed(Dense(axis.first(full), axis), full.shape, source.shape)


def summed(dense: Dense, shape: torch.Size, target: torch.Size) -> Dense:
    """Gradients of a tensor of `shape`, summed to those of the tensor of shape `target` that was broadcast to it.

    Args:
        dense: Rows over `shape`.
        shape: What `target` was broadcast to.
        target: Aligned with `shape` from the right, each size equal or 1.

    Returns:
        Rows over `target`.
    """
    missing = len(shape) - len(target)
    samples = dense.rows.shape[0]
    gone = {d for d in range(len(shape)) if d < missing or target[d - missing] == 1}
    own = dense.own
    if own is None:
        axes = [1 + d for d in gone]
        return Dense(_sum(dense.rows, axes).reshape(samples, *target))
    at = own.dim
    axes = [1 + d + (d > at) for d in gone if d != at]
    if at in gone:
        return Dense(_sum(dense.rows, [*axes, 1 + at, 2 + at]).reshape(samples, *target))
    kept = SampleAxis(at - missing, own.outer, own.samples, own.inner)
    split = (*target[: kept.dim], own.outer, own.inner, *target[kept.dim + 1 :])
    return Dense(_sum(dense.rows, axes).reshape(samples, *split), kept)


def _sum(rows: Tensor, axes: list[int]) -> Tensor:
    return rows.sum(axes, keepdim=True) if axes else rows
