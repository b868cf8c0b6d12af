"""The ERD weight: the root-mean-square amplitude of the part of a target that the noisy input expresses.

For y = c_x x0 + c_ε ε seen through x = α x0 + σ ε it is √((c_x α)² + (c_ε σ)²), up to a constant. It is
defined anew on every target, so ε, x0 and v give three different objectives, never one converted.
Source: Yao et al. 2026, "Elucidating Representation Degradation Problem in Diffusion Model Training",
arXiv 2605.10790.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ntkdiag.errors import InputError
from ntkdiag.process.schedule import Schedule

CONVENTIONS = ("vp", "raw", "official")
_OFFICIAL_TARGETS = ("epsilon", "x0", "v", "flow")


def erd(log_snr: Tensor, *, target: str, schedule: Schedule | None, convention: str) -> Tensor:
    """ln of the ERD weight.

    Args:
        log_snr: Finite log-SNR, any shape.
        target: epsilon, x0, v, score, flow or F.
        schedule: Needed for score, flow and F, and by every convention but "vp".
        convention: Which α and σ the amplitude is taken of.
            "vp": those of the unit-variance path, α² = sigmoid(λ). ε: σ, x0: α, v: α σ (the constant √2 is
            left out), F: α σ of the data divided by its standard deviation σ_d.
            "raw": the schedule's own. It is the vp weight times √(α² + σ²), for F √(α²σ_d² + σ²).
            "official": what the published code computes: ε: σ, x0: α, v: α σ of the schedule's own path,
            flow: 1 (its weight of 1 at SNR = 0 is set by `ntkdiag.weights.evaluate`).

    Returns:
        ln w, of the shape of `log_snr`.

    Raises:
        InputError: the schedule is missing, or "official" is asked for a target it does not know.
    """
    if convention == "official":
        return _official(log_snr, target, _given(schedule, convention))
    if convention == "raw":
        path = _given(schedule, convention)
        spread = path.sigma_data if target == "F" else 1.0
        return _unit_amplitude(log_snr, target, path) + _log_size(log_snr, path, spread)
    return _unit_amplitude(log_snr, target, schedule)


def _unit_amplitude(log_snr: Tensor, target: str, schedule: Schedule | None) -> Tensor:
    """ln of the amplitude for α² = sigmoid(λ), σ² = sigmoid(−λ)."""
    log_alpha, log_sigma = logsigmoid(log_snr) / 2, logsigmoid(-log_snr) / 2
    if target == "epsilon":
        return log_sigma
    if target == "x0":
        return log_alpha
    if target == "v":
        return log_alpha + log_sigma
    path = _given(schedule, f"target {target}")
    if target == "F":
        # F is −v of the data x0/σ_d, whose log-SNR is higher by 2 ln σ_d.
        return _unit_amplitude(log_snr + 2 * math.log(path.sigma_data), "v", None)
    if target == "score":
        return -_log_size(log_snr, path, 1.0)
    alpha_rate, sigma_rate = path.rates(log_snr)
    return (
        torch.logaddexp(2 * (alpha_rate.abs().log() + log_alpha), 2 * (sigma_rate.abs().log() + log_sigma))
        / 2
    )


def _official(log_snr: Tensor, target: str, schedule: Schedule) -> Tensor:
    if target not in _OFFICIAL_TARGETS:
        raise InputError(
            "target under convention='official'",
            expected="one of " + ", ".join(_OFFICIAL_TARGETS),
            got=repr(target),
            fix="Use convention='vp'.",
        )
    if target == "flow":
        return torch.zeros_like(log_snr)
    log_alpha, log_sigma = schedule.alpha(log_snr).log(), schedule.sigma(log_snr).log()
    return {"epsilon": log_sigma, "x0": log_alpha, "v": log_alpha + log_sigma}[target]


def _log_size(log_snr: Tensor, schedule: Schedule, spread: float) -> Tensor:
    """ln √((α·spread)² + σ²), zero on a variance-preserving path with spread 1."""
    return torch.hypot(schedule.alpha(log_snr) * spread, schedule.sigma(log_snr)).log()


def _given(schedule: Schedule | None, reason: str) -> Schedule:
    if schedule is None:
        raise InputError(
            "schedule",
            expected=f"a schedule, because ERD needs one for {reason}",
            got="none",
            fix="Pass the one you train with, for example schedule=ntkdiag.schedules.cosine().",
        )
    return schedule
