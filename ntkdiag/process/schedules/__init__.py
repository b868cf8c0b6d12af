"""Schedules by name: `ntkdiag.schedules.cosine()`, `linear_beta()`, `flow()`, `edm()`, `from_diffusers(scheduler)`.

Each function returns a `Schedule` (see `base`); `named` makes one from the name and parameters that
`Schedule.describe` gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ntkdiag.errors import InputError, explain_calls, require_one_of
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.continuous import EDM, Cosine, Flow, LinearLogSNR
from ntkdiag.process.schedules.diffusers_scheduler import from_diffusers
from ntkdiag.process.schedules.discrete import LinearBeta, LogSNRTable, ScaledLinearBeta
from ntkdiag.process.schedules.timesteps import log_snr_of_timesteps

__all__ = [
    "SCHEDULES",
    "cosine",
    "edm",
    "flow",
    "from_diffusers",
    "from_table",
    "linear_beta",
    "linear_log_snr",
    "log_snr_of_timesteps",
    "named",
    "scaled_linear_beta",
]


def cosine(time_scale: float = 1.0) -> Schedule:
    """Variance preserving, α = cos(πt/2), t uniform on [0, 1] (Nichol & Dhariwal 2021, without their offset).

    Args:
        time_scale: Time of pure noise, positive: the schedule counts time_scale · t. π/2 is TrigFlow's angle.

    Raises:
        InputError: a scale that is not positive.

    Example:
        >>> round(cosine().sigma(0.0).item() ** 2, 6)  # at log-SNR 0, half of the variance is noise
        0.5
    """
    return Cosine(time_scale)


def linear_beta(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """DDPM's discrete schedule, β rising linearly over the steps (Ho et al. 2020).

    Args:
        steps: Number of steps, at least 2.
        beta_start: β of the first step, in (0, 1).
        beta_end: β of the last step, in (0, 1).

    Raises:
        InputError: a number out of its range.

    Example:
        >>> round(linear_beta().log_snr(0).item(), 3)  # the first step, ᾱ = 1 − 1e-4
        9.21
    """
    return LinearBeta(steps, beta_start, beta_end)


def scaled_linear_beta(steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """The discrete schedule of latent diffusion, √β rising linearly over the steps (Rombach et al. 2022).

    The defaults are those of Stable Diffusion; diffusers calls these betas "scaled_linear".

    Args:
        steps: Number of steps, at least 2.
        beta_start: β of the first step, in (0, 1).
        beta_end: β of the last step, in (0, 1).

    Raises:
        InputError: a number out of its range.

    Example:
        >>> round(scaled_linear_beta().log_snr(0).item(), 3)  # the first step, ᾱ = 1 − 0.00085
        7.069
    """
    return ScaledLinearBeta(steps, beta_start, beta_end)


def linear_log_snr(log_snr_min: float = -10.0, log_snr_max: float = 10.0) -> Schedule:
    """Variance preserving, log-SNR uniform between two ends (Kingma et al. 2021).

    Args:
        log_snr_min: Log-SNR at t = 1, finite.
        log_snr_max: Log-SNR at t = 0, finite and above `log_snr_min`.

    Raises:
        InputError: ends that are not finite or not in this order.

    Example:
        >>> linear_log_snr(-6, 10).time(2.0).item()
        0.5
    """
    return LinearLogSNR(log_snr_min, log_snr_max)


def flow(
    logit_mean: float | None = None,
    logit_std: float | None = None,
    shift: float = 1.0,
    time_scale: float = 1.0,
) -> Schedule:
    """Rectified flow x = (1 − t) x0 + t ε.

    Args:
        logit_mean: Mean of logit t in training; None for uniform t.
        logit_std: Standard deviation of logit t in training; None for uniform t.
        shift: Resolution shift of training time towards noise, positive (Esser et al. 2024, equation 23).
        time_scale: Time of pure noise, positive: the schedule counts time_scale · t. Many networks are told 1000 t.

    Raises:
        InputError: one of mean and standard deviation without the other, or a number out of its range.

    Example:
        >>> flow().log_snr(0.5).item(), flow().rates(0.0)[1].item()
        (0.0, 1.0)
    """
    return Flow(logit_mean, logit_std, shift, time_scale)


def edm(
    sigma_data: float = 0.5, p_mean: float = -1.2, p_std: float = 1.2, time_scale: float | None = None
) -> Schedule:
    """Variance exploding x = x0 + s ε with ln s ~ N(p_mean, p_std²) (Karras et al. 2022).

    Args:
        sigma_data: Standard deviation of the data that the F target assumes.
        p_mean: Mean of ln s in training; −0.4 in EDM2 (Karras et al. 2024).
        p_std: Standard deviation of ln s in training; 1.0 in EDM2.
        time_scale: None: the schedule's time is the noise level s. A positive number: it is time_scale · ln s, as networks
            of EDM (1/4) and consistency models (250) are told.

    Raises:
        InputError: a standard deviation or a scale that is not positive.

    Example:
        >>> round(edm().log_snr(2.0).item(), 4)  # at noise level s = 2: −2 ln s
        -1.3863
    """
    return EDM(sigma_data, p_mean, p_std, time_scale)


def from_table(log_snr: Sequence[float] | np.ndarray | Tensor) -> Schedule:
    """A discrete, variance-preserving schedule from its log-SNR at every step.

    Args:
        log_snr: Strictly decreasing; the last entry may be −inf (zero terminal SNR).

    Raises:
        InputError: entries that are not numbers, do not decrease, or are infinite elsewhere.

    Example:
        >>> from_table([4.0, 0.0, -4.0]).log_snr(1.5).item()
        -2.0
    """
    try:
        levels = tuple(float(value) for value in log_snr)
    except (TypeError, ValueError) as error:
        raise InputError(
            "log-SNR table", expected="a flat list of numbers", got=type(log_snr).__name__
        ) from error
    return LogSNRTable(levels)


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "cosine": cosine,
    "linear_beta": linear_beta,
    "scaled_linear_beta": scaled_linear_beta,
    "linear_log_snr": linear_log_snr,
    "flow": flow,
    "edm": edm,
    "from_table": from_table,
}


def named(name: str, **parameters: Any) -> Schedule:
    """The schedule of a given name, as the command line and the files of a run write it.

    Args:
        name: A key of `SCHEDULES`.
        parameters: Arguments of that constructor.

    Raises:
        InputError: unknown name or parameter, or a value out of its range.

    Example:
        >>> named("flow", shift=3.0) == flow(shift=3.0)
        True
    """
    constructor = SCHEDULES[require_one_of("schedule", name, SCHEDULES)]
    signature = inspect.signature(constructor)
    for parameter in parameters:
        require_one_of(f"parameter of schedule {name}", parameter, signature.parameters)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        raise InputError(f"schedule {name}", expected=f"parameters {signature}", got=str(error)) from error
    return constructor(**parameters)


explain_calls(__name__, "nd.schedules.cosine()")
