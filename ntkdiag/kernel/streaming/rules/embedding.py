"""Tables of rows that are looked up by indices: embedding, embedding bag, index_select, table[index].

A sample touches few rows of a table, so gradients are kept for the rows that the batch touches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.contraction.gradients import Compressed
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.rule import Formula, rule


@rule("embedding", [functional.embedding], core={"grad": 1, "input": 0})
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> dict[str, Formula]:
    """y = weight[input]; the row at padding_idx receives no gradient."""
    if max_norm is not None:
        raise Unsupported("an embedding that renormalises its table")
    if padding_idx is not None and padding_idx < 0:
        padding_idx += len(weight)
    return {"weight": lambda grad, input: _row_sums(weight, input, grad, padding_idx)}


@rule("embedding", [torch.embedding], core={"grad": 1, "indices": 0})
def torch_embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> dict[str, Formula]:
    """The same with its arguments in another order; a negative padding_idx is none."""
    padding = None if padding_idx < 0 else padding_idx
    return {"weight": lambda grad, indices: _row_sums(weight, indices, grad, padding)}


def _row_core(input: Tensor, **_: Any) -> dict[str, int]:
    return {"grad": input.ndim - 1, "index": 0}


@rule("index", [torch.index_select, Tensor.index_select], core=_row_core)
def index_select(input: Tensor, dim: int, index: Tensor) -> dict[str, Formula]:
    """Rows of a table."""
    if dim != 0:
        raise Unsupported("indexing of a parameter other than by integers along its first dimension")
    return {"input": lambda grad, index: _row_sums(input, index, grad)}


@rule("index", [Tensor.__getitem__], core=_row_core)
def getitem(input: Tensor, index: Any) -> dict[str, Formula]:
    """table[index]."""
    if not isinstance(index, Tensor) or index.dtype not in (torch.int64, torch.int32):
        raise Unsupported("indexing of a parameter other than by integers along its first dimension")
    return index_select(input, 0, index)


@rule("embedding bag", [functional.embedding_bag])
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> dict[str, Formula]:
    """Sums or means of table rows; each row of a matrix of indices is one bag."""
    unknown = (offsets, max_norm, per_sample_weights, padding_idx)
    if any(each is not None for each in unknown) or mode == "max":
        raise Unsupported("an embedding bag with offsets, weights, padding or maxima")
    if input.ndim != 2:
        raise Unsupported("an embedding bag without a matrix of indices")
    scale = 1 / input.shape[1] if mode == "mean" else 1.0

    def gradient(grad: Tensor, input: Tensor) -> Compressed:
        each = grad[:, :, None].expand(*input.shape, grad.shape[-1]) * scale  # [N, T, length of a bag, row]
        return _row_sums(weight, input.flatten(1), each.flatten(1, 2))

    return {"weight": gradient}


def _row_sums(table: Tensor, indices: Tensor, rows: Tensor, padding: int | None = None) -> Compressed:
    """Sum rows [N, T, *row] at indices [N, T] over the table rows that are touched at all."""
    rows = rows.flatten(2)
    touched, place = torch.unique(indices % table.shape[0], return_inverse=True)
    samples, width = rows.shape[0], rows.shape[2]
    summed = rows.new_zeros(samples, len(touched), width)
    summed.scatter_add_(1, place[:, :, None].expand(-1, -1, width), rows)
    if padding is not None:
        summed[:, touched == padding] = 0
    columns = torch.arange(width, device=rows.device)
    return Compressed(summed.flatten(1), (touched[:, None] * width + columns).flatten(), table.numel())
