"""The transpose of broadcasting, for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.gradients import Dense
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


def reduce_to(full: Tensor, parameter: Tensor, axis: SampleAxis) -> Dense:
    """Sum a gradient of the broadcast shape to the shape of the parameter, for each sample.

    Args:
        full: Gradient with respect to the parameter broadcast against the batch; it has the shape of the operation's output.
        parameter: The parameter, or a tensor derived from parameters.
        axis: Where the samples are in `full`.

    Returns:
        Rows of the parameter's shape; where the parameter has rows of its own for each sample, only those rows.
    """
    return summed(Dense(axis.first(full), axis), full.shape, parameter.shape)


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
