"""Tables looked up by indices that depend on the batch: embedding, embedding bag, index_select, table[index].

A sample touches few rows of a table, so gradients are kept on the rows that the batch touches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.contraction.gradients import Compressed
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.rule import Call, ParameterUse, Saved, rule
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


@rule("embedding", [functional.embedding, torch.embedding])
def embedding(call: Call) -> list[ParameterUse]:
    """y = table[index]; the row at padding_idx receives no gradient."""
    names: tuple[str, ...] = (
        "input",
        "weight",
        "padding_idx",
        "max_norm",
        "norm_type",
        "scale_grad_by_freq",
        "sparse",
    )
    if call.function is torch.embedding:
        names = ("weight", "input", "padding_idx", "scale_grad_by_freq", "sparse")
    bound = call.bind(*names)
    if bound.get("max_norm") is not None or bound["scale_grad_by_freq"]:
        raise Unsupported("an embedding that renormalises its table or scales by frequency")
    padding = bound["padding_idx"]
    if padding is not None and padding < 0:
        padding = None if call.function is torch.embedding else padding + bound["weight"].shape[0]
    return [_lookup(bound["weight"], bound["input"], padding)]


@rule("index", [torch.index_select, Tensor.index_select, Tensor.__getitem__])
def index(call: Call) -> list[ParameterUse]:
    """table[index] and index_select along the first dimension."""
    if call.function is Tensor.__getitem__:
        table, chosen = call.args
        dim = 0
    else:
        bound = call.bind("input", "dim", "index")
        table, dim, chosen = bound["input"], bound["dim"], bound["index"]
    integer = isinstance(chosen, Tensor) and chosen.dtype in (torch.int64, torch.int32)
    if not call.is_parameter(table) or dim != 0 or not integer:
        raise Unsupported("indexing of a parameter other than by integers along its first dimension")
    return [_lookup(table, chosen, None)]


@rule("embedding bag", [functional.embedding_bag])
def embedding_bag(call: Call) -> list[ParameterUse]:
    """Sums or means of table rows, one bag a row of a matrix of indices."""
    bound = call.bind(
        "input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse",
        "per_sample_weights", "include_last_offset", "padding_idx", mode="mean",
    )  # fmt: skip
    given: tuple[str, ...] = (
        "offsets",
        "max_norm",
        "scale_grad_by_freq",
        "per_sample_weights",
        "padding_idx",
    )
    if any(_is_set(bound[name]) for name in given) or bound["mode"] == "max":
        raise Unsupported("an embedding bag with offsets, weights, padding or maxima")
    table, indices = bound["weight"], bound["input"]
    if indices.ndim != 2 or call.is_parameter(indices):
        raise Unsupported("an embedding bag without a matrix of indices")
    scale = 1 / indices.shape[1] if bound["mode"] == "mean" else 1.0
    saved = Saved(indices)

    def gradient(grad: Tensor, axis: SampleAxis) -> Compressed:
        bags = axis.rows(saved.get(), 1)  # [N, k, length]
        each = axis.rows(grad, 1)[:, :, None].expand(*bags.shape, grad.shape[-1]) * scale
        return _compressed(table, bags.flatten(1), each.flatten(1, 2), None)

    return [ParameterUse(table, gradient)]


def _is_set(value: Any) -> bool:
    return value is not None and value is not False


def _lookup(table: Tensor, indices: Tensor, padding: int | None) -> ParameterUse:
    saved, row_dims = Saved(indices), table.ndim - 1

    def gradient(grad: Tensor, axis: SampleAxis) -> Compressed:
        if axis.dim >= indices.ndim:
            raise Unsupported("a table whose rows run along the samples")
        rows = axis.rows(grad, row_dims).flatten(2)  # [N, k, row]
        return _compressed(table, axis.rows(saved.get(), 0), rows, padding)

    return ParameterUse(table, gradient)


def _compressed(table: Tensor, indices: Tensor, rows: Tensor, padding: int | None) -> Compressed:
    """Sum rows [N, k, row] at indices [N, k] over the table rows that are touched at all."""
    touched, place = torch.unique(indices % table.shape[0], return_inverse=True)
    samples, width = rows.shape[0], rows.shape[2]
    summed = rows.new_zeros(samples, len(touched), width)
    summed.scatter_add_(1, place[:, :, None].expand(-1, -1, width), rows)
    if padding is not None:
        summed[:, touched == padding] = 0
    columns = torch.arange(width, device=rows.device)
    return Compressed(summed.flatten(1), (touched[:, None] * width + columns).flatten(), table.numel())
