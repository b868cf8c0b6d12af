"""Which samples, and which outputs of each, an operator is restricted to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ntkdiag.errors import InputError

Samples = Sequence[int] | Tensor


def positions_of(what: str, chosen: Samples | None, count: int) -> Tensor:
    """Positions of the samples to take.

    Args:
        what: The argument's name.
        chosen: Positions or a boolean mask [count]; None takes all.
        count: N.

    Raises:
        InputError: anything else, none, or a sample twice.
    """
    if chosen is None:
        return torch.arange(count)
    try:
        picked = torch.as_tensor(chosen).cpu()
    except (TypeError, ValueError, RuntimeError):  # no numbers
        picked = torch.empty(0)
    if picked.dtype == torch.bool and picked.shape == (count,):
        picked = picked.nonzero().flatten()
    whole = not (picked.is_floating_point() or picked.is_complex() or picked.dtype == torch.bool)
    if not whole or picked.ndim != 1 or len(picked) == 0 or picked.min() < 0 or picked.max() >= count:
        raise InputError(what, expected=f"positions from 0 to {count - 1}, or a mask of {count}", got=chosen)
    if len(picked.unique()) < len(picked):
        raise InputError(what, expected="each sample once", got=picked.tolist())
    return picked.long()


def kept_outputs(mask: Tensor | None, shape: torch.Size) -> Tensor:
    """Positions of the outputs to keep among a sample's.

    Args:
        mask: Boolean [*shape]; None keeps all.
        shape: Of a sample's output.

    Raises:
        InputError: another mask, or one that keeps nothing.
    """
    if mask is None:
        return torch.arange(math.prod(shape))
    fits = isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == shape
    if not fits or not bool(mask.any()):
        raise InputError(
            "outputs",
            expected=f"a boolean mask of shape {tuple(shape)} with something in it",
            got=f"{mask.sum()} of {tuple(mask.shape)}, {mask.dtype}"
            if isinstance(mask, Tensor)
            else type(mask).__name__,
        )
    return mask.flatten().nonzero().flatten().cpu()
