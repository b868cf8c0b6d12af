"""Parameters joined to the batch: concatenated (class tokens, register tokens) or stacked."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.broadcasting import reduce_to
from ntkdiag.kernel.streaming.contraction.gradients import Dense
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.general import Call, ParameterUse, ToGradient, general_rule
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


@general_rule("concatenation", [torch.cat, torch.concat, torch.concatenate])
def concatenation(call: Call) -> list[ParameterUse]:
    """y = [a; p; b] along a dimension other than the samples'."""
    bound = call.bind("tensors", "dim", dim=0)
    parts = [part for part in bound["tensors"] if part.shape != (0,)]  # which torch.cat skips
    dim = bound["dim"] % parts[0].ndim
    uses, start = [], 0
    for part in parts:
        if call.is_parameter(part):
            uses.append(ParameterUse(part, _piece(part, dim, start)))
        start += part.shape[dim]
    return uses


@general_rule("stack", [torch.stack])
def stack(call: Call) -> list[ParameterUse]:
    """y = tensors side by side along a new dimension."""
    bound = call.bind("tensors", "dim", dim=0)
    parts = list(bound["tensors"])
    dim = bound["dim"] % (parts[0].ndim + 1)
    return [
        ParameterUse(part, _piece(part, dim, place, new=True))
        for place, part in enumerate(parts)
        if call.is_parameter(part)
    ]


def _piece(part: Tensor, dim: int, start: int, new: bool = False) -> ToGradient:
    length = 1 if new else part.shape[dim]

    def gradient(grad: Tensor, axis: SampleAxis) -> Dense:
        if axis.dim == dim:
            raise Unsupported("a parameter joined along the dimension that holds the samples")
        piece = grad.narrow(dim, start, length)
        if not new:
            return reduce_to(piece, part, axis)
        moved = axis if axis.dim < dim else SampleAxis(axis.dim - 1, axis.outer, axis.samples, axis.inner)
        return reduce_to(piece.squeeze(dim), part, moved)

    return gradient
