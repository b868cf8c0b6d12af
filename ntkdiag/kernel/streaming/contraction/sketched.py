"""From per-sample gradients to the rows of a sketch: where there are factors, they are sketched before their product."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.kernel.sketch import Projection
from ntkdiag.kernel.streaming.contraction.gradients import (
    Compressed,
    Outer,
    PerSampleGradient,
    Unformed,
    as_dense,
)


def sketched(gradient: PerSampleGradient, projection: Projection) -> Tensor:
    """Rows [N, length] of per-sample gradients.

    For an outer product Σ_t (Sᵀ left_it) ⊗ (Rᵀ right_it): 2T(p + q)k operations a sample instead of 2Tpq.

    Args:
        gradient: Of a parameter, or of a block of it; its elements in the order of the projection's matrix.
        projection: Of that parameter or block.
    """
    p, q = projection.matrix
    if not projection.whole:
        if isinstance(gradient, Outer) and (gradient.left.shape[2], gradient.right.shape[2]) == (p, q):
            left = _times(gradient.left, projection.left, projection.dtype)
            return (left.mT @ _times(gradient.right, projection.right, projection.dtype)).flatten(1)
        if isinstance(gradient, Unformed) and projection.left is not None and gradient.left.shape[2] == p:
            return _channels_first(gradient, projection.left, projection)
        if isinstance(gradient, Compressed) and (found := gradient.by_rows(q)) is not None:
            return _touched(*found, projection)
    return projection.rows(as_dense(gradient).rows)


def _times(factor: Tensor, side: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[N, T, p] → [N, T, k]."""
    return factor.to(dtype) if side is None else factor.to(dtype) @ side


def _channels_first(gradient: Unformed, left: Tensor, projection: Projection) -> Tensor:
    """The channels are sketched, then the gradient of k channels is formed."""
    channels = torch.einsum("ntp...,pk->ntk...", gradient.left.to(left.dtype), left)
    formed = gradient.form(channels.to(gradient.left.dtype), gradient.right).flatten(2)
    return _times(formed, projection.right, projection.dtype).flatten(1)


def _touched(touched: Tensor, rows: Tensor, projection: Projection) -> Tensor:
    """Rows of a table [N, t, q], of which only those numbered `touched` are not zero."""
    right = _times(rows, projection.right, projection.dtype)
    if projection.left is None:
        found = right.new_zeros(len(rows), projection.matrix[0], right.shape[2])
        found[:, touched] = right
    else:
        found = projection.left[touched].T @ right
    return found.flatten(1)
