"""Bayes floor: the part of a loss that no network can remove, and the share of the target that can be learned.

Given the noisy x every target is k·x0 plus something known, so the smallest possible squared error of a
target is k² times the MMSE of x0, with k from `target.x0_gain`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.process.log_snr import Level, as_level
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import variance, x0_gain


def linear_mmse(eigenvalues: Tensor, log_snr: Level) -> Tensor:
    """Error per dimension of the best linear denoiser, mean_k s_k σ²/(α² s_k + σ²) (Wiener 1949).

    The MMSE itself for Gaussian data, an upper bound of it for any other.

    Args:
        eigenvalues: Of the data's covariance, [D], non-negative.
        log_snr: Any shape.

    Returns:
        float64, the shape of `log_snr`; exact at ±inf.
    """
    level = as_level(log_snr).double()
    spread = eigenvalues.to(level)
    # s/(1 + SNR s) = s·sigmoid(−λ − ln s). The clamp avoids ln 0, which would give NaN; a variance of 0 leaves no error.
    left = spread * torch.sigmoid(-(level[..., None] + spread.clamp(min=1e-300).log()))
    return left.mean(-1)


def floor(target: str, schedule: Schedule, log_snr: Level, mmse: Tensor) -> Tensor:
    """Irreducible loss per dimension of a target, k² MMSE.

    Args:
        target: Name of the target.
        schedule: The process.
        log_snr: Finite, of the shape of `mmse`.
        mmse: E‖x0 − E[x0|x]‖² per dimension.

    Returns:
        float64, the shape of `log_snr`.
    """
    gain = x0_gain(target, schedule, as_level(log_snr).double())
    return gain**2 * mmse.to(gain)


def bayes_share(
    target: str, schedule: Schedule, log_snr: Level, mmse: Tensor, data_variance: Level
) -> Tensor:
    """Recoverable share of a target's variance, ρ = 1 − floor/Var(y).

    Args:
        target: Name of the target.
        schedule: The process.
        log_snr: Finite, of the shape of `mmse`.
        mmse: E‖x0 − E[x0|x]‖² per dimension.
        data_variance: Mean variance of a dimension of the data.

    Returns:
        In [0, 1], float64, the shape of `log_snr`; an `mmse` that is an upper bound makes it a lower bound.
    """
    level = as_level(log_snr).double()
    lost = floor(target, schedule, level, mmse) / variance(target, schedule, level, data_variance)
    return (1 - lost).clamp(0, 1)
