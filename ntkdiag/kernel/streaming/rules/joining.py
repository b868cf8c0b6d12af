"""Parameters joined to the batch: concatenated (class tokens, register tokens) or stacked."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.broadcasting import reduce_to
from ntkdiag.kernel.streaming.contraction.forms import Dense
from ntkdiag.kernel.streaming.layouts.layout import Layout
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.registry import Call, ToForm, Use, rule


@rule("concatenation", [torch.cat, torch.concat, torch.concatenate])
def concatenation(call: Call) -> list[Use]:
    """y = [a; p; b] along a dimension other than the samples'."""
    bound = call.bind("tensors", "dim", dim=0)
    parts = [part for part in bound["tensors"] if part.shape != (0,)]  # which torch.cat skips
    dim = bound["dim"] % parts[0].ndim
    uses, start = [], 0
    for part in parts:
        if call.is_source(part):
            uses.append(Use(part, _piece(part, dim, start)))
        start += part.shape[dim]
    return uses


@rule("stack", [torch.stack])
def stack(call: Call) -> list[Use]:
    """y = tensors side by side along a new dimension."""
    bound = call.bind("tensors", "dim", dim=0)
    parts = list(bound["tensors"])
    dim = bound["dim"] % (parts[0].ndim + 1)
    return [
        Use(part, _piece(part, dim, place, new=True))
        for place, part in enumerate(parts)
        if call.is_source(part)
    ]


def _piece(part: Tensor, dim: int, start: int, new: bool = False) -> ToForm:
    length = 1 if new else part.shape[dim]

    def form(grad: Tensor, layout: Layout) -> Dense:
        if layout.dim == dim:
            raise Unsupported("a parameter joined along the dimension that holds the samples")
        piece = grad.narrow(dim, start, length)
        if not new:
            return reduce_to(piece, part, layout)
        moved = (
            layout if layout.dim < dim else Layout(layout.dim - 1, layout.outer, layout.samples, layout.inner)
        )
        return reduce_to(piece.squeeze(dim), part, moved)

    return form
