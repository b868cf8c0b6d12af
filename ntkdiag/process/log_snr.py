"""Log-SNR values as tensors: the precision they are computed in, and α and σ of the variance-preserving path.

A level is one number or a tensor; `expand` shapes one number per sample so that it multiplies a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.errors import InputError, kind_of

# A log-SNR, a time or a probability: one number or a tensor of any shape.
Level = float | Tensor
_LEVEL = "log_snr or time"


def as_level(value: Level) -> Tensor:
    """`value` as a floating tensor: a floating tensor is returned as it is, all else becomes float64.

    Raises:
        InputError: `value` is neither a number nor numbers.
    """
    if isinstance(value, Tensor) and value.is_floating_point():
        return value
    return as_numbers(_LEVEL, value, torch.float64)


def as_numbers(
    what: str, values: object, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """Numbers as people write them, as a tensor.

    Args:
        what: The name of the values, for the message.
        values: A number, a tensor, an array or nested sequences of numbers.
        dtype, device: Those of the result; None keeps those of a tensor.

    Raises:
        InputError: something else, or rows of different lengths.
    """
    try:
        return torch.as_tensor(values, dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError):
        if isinstance(values, Tensor):  # not a matter of its type
            raise
        got = repr(values) if isinstance(values, str) else kind_of(values)
        raise InputError(what, expected="a number or a tensor of numbers", got=got) from None


def widen(value: Tensor) -> Tensor:
    """`value` in a precision that is safe to compute in: half precision becomes float32, the rest stays."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def apply_wide(function: Callable[[Tensor], Tensor], value: Level) -> Tensor:
    """Evaluate `function` at `value` in at least float32 and return the result in the dtype of `value`."""
    level = as_level(value)
    return function(widen(level)).to(level.dtype)


def level_like(log_snr: Level, like: Tensor) -> Tensor:
    """Log-SNR for a network: on the device of `like` and in its dtype, but in float32 where that is a half precision.

    bfloat16 holds a log-SNR of 9 to 0.03, so it is left to the network's own embedding to narrow it.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return as_numbers(_LEVEL, log_snr, dtype, like.device)


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Shape one number per sample so that it multiplies a batch.

    Args:
        values: A scalar tensor or [N].
        like: The batch [N, *shape].

    Returns:
        `values` as [] or [N, 1, ...], in the dtype and on the device of `like`.

    Raises:
        InputError: another shape, or another N.
    """
    if values.ndim == 0:
        return values.to(like)
    if values.ndim != 1 or like.ndim == 0 or values.shape[0] not in (1, like.shape[0]):
        raise InputError(
            "values per sample",
            expected=f"one number, or one for each sample of a batch of shape {tuple(like.shape)}",
            got=f"shape {tuple(values.shape)}",
        )
    return values.to(like).reshape(-1, *(1,) * (like.ndim - 1))


def vp_alpha(log_snr: Tensor) -> Tensor:
    """α of the variance-preserving path, √sigmoid(λ): exact at ±inf, and never formed from 1 − σ²."""
    return (functional.logsigmoid(log_snr) / 2).exp()


def vp_sigma(log_snr: Tensor) -> Tensor:
    """σ of the variance-preserving path, √sigmoid(−λ)."""
    return (functional.logsigmoid(-log_snr) / 2).exp()
