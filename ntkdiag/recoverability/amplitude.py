"""Amplitude: the root-mean-square size of the part of a target that the noisy input expresses, the ERD score.

For y = c_x x0 + c_ε ε and x = α x0 + σ ε, with data of unit variance, it is √((c_x α)² + (c_ε σ)²). It is defined
separately for every target: those of ε, x0 and v are three different measures and do not convert into one another.
Source: Yao et al. 2026, "Elucidating Representation Degradation Problem in Diffusion Model Training",
arXiv 2605.10790.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.process import schedules
from ntkdiag.process.log_snr import Level, as_level
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import coefficients, target_name

CONVENTIONS = ("vp", "raw", "official")
_OFFICIAL_TARGETS = ("epsilon", "x0", "v", "flow")
# Their coefficients are functions of the log-SNR alone.
_SAME_ON_EVERY_PATH = ("epsilon", "x0", "v")


def amplitude(target: str, schedule: Schedule | None, log_snr: Level, convention: str = "vp") -> Tensor:
    """RMS amplitude of the part of the target that the input expresses.

    Args:
        target: epsilon, x0, v, score, flow or F.
        schedule: The path; not needed for epsilon, x0 and v under "vp".
        log_snr: Log-SNR, any shape; −∞ under "vp" and "official" for epsilon, x0 and v, finite otherwise.
        convention: Whose α and σ enter.
            "vp": those of the unit-variance path, α² = sigmoid(λ). ε: σ, x0: α, v: √2 α σ, linear flow: 1.
            "raw": the schedule's own, the vp amplitude times √(α² + σ²).
            "official": what the published code computes: ε: σ, x0: α, v: α σ of the schedule's own path, flow: 1;
            and 1 where SNR = 0.
            F is a target for data of standard deviation σ_d, so there x0/σ_d takes the place of x0:
            "vp" is √2 α σ at λ + 2 ln σ_d, "raw" that times √(α²σ_d² + σ²).

    Returns:
        Amplitude ≥ 0, of the shape of `log_snr`; float64 for a number.

    Raises:
        InputError: unknown target or convention, a missing schedule, or "official" for score or F.

    Example:
        >>> amplitude("epsilon", None, torch.tensor([-2.0, 0.0]))  # σ of the unit-variance path
        tensor([0.9385, 0.7071])
    """
    level = as_level(log_snr)
    found = log_amplitude(target, schedule, level, convention).exp()
    return torch.where(torch.isneginf(level), 1.0, found) if convention == "official" else found


def log_amplitude(target: str, schedule: Schedule | None, log_snr: Tensor, convention: str = "vp") -> Tensor:
    """ln of `amplitude`, exact also where the amplitude would overflow or vanish; same arguments, finite log-SNR.

    Example:
        >>> log_amplitude("x0", None, torch.tensor([-2000.0]))  # ln α, though α underflows
        tensor([-1000.])
    """
    require_one_of("convention", convention, CONVENTIONS)
    name = target_name(target)
    path = _path(name, schedule, convention)
    if convention == "official":
        return _official(name, path, log_snr)
    spread = path.sigma_data if name == "F" else 1.0
    if convention == "raw":
        log_alpha, log_sigma = (path.alpha(log_snr) * spread).log(), path.sigma(log_snr).log()
    else:
        unit = log_snr + 2 * math.log(spread)
        log_alpha, log_sigma = logsigmoid(unit) / 2, logsigmoid(-unit) / 2
    c_x, c_epsilon = coefficients(name, path, log_snr)
    signal = (c_x * spread).abs().log() + log_alpha
    noise = c_epsilon.abs().log() + log_sigma
    return torch.logaddexp(2 * signal, 2 * noise) / 2


def _official(target: str, path: Schedule, log_snr: Tensor) -> Tensor:
    if target not in _OFFICIAL_TARGETS:
        raise InputError(
            "target under convention='official'",
            expected="one of " + ", ".join(_OFFICIAL_TARGETS),
            got=repr(target),
            fix="Use {convention}.",
            arguments={"convention": "'vp'"},
        )
    if target == "flow":
        return torch.zeros_like(log_snr)
    log_alpha, log_sigma = path.alpha(log_snr).log(), path.sigma(log_snr).log()
    return {"epsilon": log_sigma, "x0": log_alpha, "v": log_alpha + log_sigma}[target]


def _path(target: str, schedule: Schedule | None, convention: str) -> Schedule:
    """The given schedule, or any schedule where all give the same amplitude."""
    if schedule is not None:
        return schedule
    if convention == "vp" and target in _SAME_ON_EVERY_PATH:
        return schedules.cosine()
    reason = f"target {target}" if convention == "vp" else convention
    raise InputError(
        "schedule",
        expected=f"a schedule, because ERD needs one for {reason}",
        got="none",
        fix="Pass the one you train with, for example {schedule}.",
        arguments={"schedule": "ntkdiag.schedules.cosine()"},
    )
