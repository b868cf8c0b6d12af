"""Target: what a network predicts, y = c_x x0 + c_ε ε, and how one target is converted into another.

Given the noisy x, every target is k x0 plus a known term, with a known factor k (the "gain"), so losses,
Bayes floors and kernels convert between targets by k².
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkdiag.errors import require_one_of
from ntkdiag.process.log_snr import Level, as_level, expand, vp_alpha, vp_sigma, widen
from ntkdiag.process.schedules.base import Schedule

TARGETS = ("epsilon", "x0", "v", "score", "flow", "F")

_ALIASES = {
    "eps": "epsilon",
    "ε": "epsilon",
    "sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "flow",
}


def target_name(text: str) -> str:
    """The name of a target as it stands in `TARGETS`.

    Args:
        text: A name of `TARGETS`; "eps" or "ε"; or diffusers' "sample", "v_prediction", "flow_prediction".

    Raises:
        InputError: anything else.
    """
    return _ALIASES.get(text) or require_one_of("target", text, TARGETS)


def coefficients(target: str, schedule: Schedule, log_snr: Level) -> tuple[Tensor, Tensor]:
    """The coefficients (c_x, c_ε) of y = c_x x0 + c_ε ε, each in the shape and dtype of `log_snr`.

    epsilon (0, 1), x0 (1, 0), v (−σ, α), score (0, −1/σ), flow (dα/dt, dσ/dt) in the schedule's time,
    F (s/(σ_d √(s²+σ_d²)), −σ_d/√(s²+σ_d²)) with s = σ/α: Salimans & Ho 2022 (v), Karras et al. 2022 (F).
    v always means the variance-preserving α and σ of that log-SNR, and F takes σ_d from
    `schedule.sigma_data`, so both are defined on every path; F of x0 is −v of x0/σ_d at
    log-SNR + 2 ln σ_d.

    Raises:
        InputError: unknown target.
    """
    level = as_level(log_snr)
    c_x, c_epsilon = _coefficients(target_name(target), schedule, widen(level))
    return c_x.to(level.dtype), c_epsilon.to(level.dtype)


def value(target: str, schedule: Schedule, log_snr: Level, x0: Tensor, epsilon: Tensor) -> Tensor:
    """The value of a target, y = c_x x0 + c_ε ε.

    Args:
        target: Name of the target.
        schedule: The process.
        log_snr: One number or [N].
        x0: Data [N, *shape].
        epsilon: Noise [N, *shape].

    Returns:
        [N, *shape].
    """
    c_x, c_epsilon = _coefficients(target_name(target), schedule, widen(as_level(log_snr)))
    return expand(c_x, x0) * x0 + expand(c_epsilon, x0) * epsilon


def to_x0(target: str, schedule: Schedule, log_snr: Level, prediction: Tensor, x: Tensor) -> Tensor:
    """The x0 that follows from a prediction and the noisy input.

    Args:
        target: What `prediction` predicts.
        schedule: The process.
        log_snr: One number or [N].
        prediction: [N, *shape].
        x: The noisy input it was made from, [N, *shape].

    Returns:
        [N, *shape]; not finite where the target does not determine x0 (epsilon and score at SNR = 0).
    """
    if target_name(target) == "x0":
        return prediction
    return _solve(target, schedule, log_snr, prediction, x)[0]


def to_epsilon(target: str, schedule: Schedule, log_snr: Level, prediction: Tensor, x: Tensor) -> Tensor:
    """The ε that follows from a prediction, with the arguments of `to_x0`; not finite for x0 at infinite SNR."""
    if target_name(target) == "epsilon":
        return prediction
    return _solve(target, schedule, log_snr, prediction, x)[1]


def convert(
    prediction: Tensor, x: Tensor, log_snr: Level, schedule: Schedule, source: str, destination: str
) -> Tensor:
    """A prediction of target `source` converted into one of target `destination`; shapes as in `to_x0`."""
    source, destination = target_name(source), target_name(destination)
    if source == destination:
        return prediction
    if destination == "x0":
        return to_x0(source, schedule, log_snr, prediction, x)
    epsilon = to_epsilon(source, schedule, log_snr, prediction, x)
    if destination in ("epsilon", "score"):
        # c_x is 0 here, and 0 times an x0 that is not finite would be NaN.
        return expand(coefficients(destination, schedule, log_snr)[1], x) * epsilon
    return value(destination, schedule, log_snr, to_x0(source, schedule, log_snr, prediction, x), epsilon)


def x0_gain(target: str, schedule: Schedule, log_snr: Level) -> Tensor:
    """The gain k = c_x − c_ε α/σ: given the noisy x, a target is y = k x0 + (c_ε/σ) x.

    Hence loss_y = k² loss_x0, floor_y = k² MMSE, and for kernels K_x0 = K_y / k². Computed in closed form, without
    the subtraction: −√SNR for epsilon, 1 for x0, −1/σ for v.

    Args:
        target: Name of the target.
        schedule: The process.
        log_snr: One number or a tensor.

    Returns:
        Shape and dtype of `log_snr` (float64 for a number).
    """
    level = as_level(log_snr)
    name, wide = target_name(target), widen(level)
    if name == "x0":
        return torch.ones_like(level)
    gain = _scaled_gain(name, schedule, wide) / vp_sigma(wide)
    if name == "score":
        gain = gain / schedule.sigma(wide)
    return gain.to(level.dtype)


def convert_weight(
    weight: Level, log_snr: Level, schedule: Schedule, source: str, destination: str
) -> Tensor:
    """The weight on `destination` that makes the same objective as `weight` on `source`.

    w_destination = w_source k_source²/k_destination², so that weight·loss is the same for both targets.

    Args:
        weight: Weight of the squared error of `source`, one number or the shape of `log_snr`.
        log_snr: Log-SNR at which the weight applies.
        schedule: The process.
        source: Target whose squared error `weight` multiplies.
        destination: Target whose squared error the result multiplies.

    Returns:
        Shape of `weight` and `log_snr` broadcast; may be infinite at infinite log-SNR.
    """
    source, destination = target_name(source), target_name(destination)
    level = as_level(log_snr)
    given = as_level(weight).to(level)
    if source == destination:
        return given * torch.ones_like(level)
    wide, result = widen(level), widen(given)
    # The score is −ε/σ on any path: once σ² is divided out, the ratios are exact at log-SNR ±inf.
    if source == "score":
        result = result / schedule.sigma(wide) ** 2
    if destination == "score":
        result = result * schedule.sigma(wide) ** 2
    ratio = _scaled_gain(source, schedule, wide) / _scaled_gain(destination, schedule, wide)
    if {source, destination} == {"epsilon", "score"}:
        ratio = torch.ones_like(wide)
    return (result * ratio**2).to(level.dtype)


def variance(target: str, schedule: Schedule, log_snr: Level, data_variance: Level) -> Tensor:
    """Variance of the target per dimension, c_x² Var(x0) + c_ε².

    Args:
        target: Name of the target.
        schedule: The process.
        log_snr: One number or a tensor.
        data_variance: Mean variance of a dimension of the data.
    """
    c_x, c_epsilon = coefficients(target, schedule, log_snr)
    return c_x**2 * as_level(data_variance).to(c_x) + c_epsilon**2


def _coefficients(target: str, schedule: Schedule, log_snr: Tensor) -> tuple[Tensor, Tensor]:
    zero, one = torch.zeros_like(log_snr), torch.ones_like(log_snr)
    match target:
        case "epsilon":
            return zero, one
        case "x0":
            return one, zero
        case "v":
            return -vp_sigma(log_snr), vp_alpha(log_snr)
        case "score":
            return zero, -1 / schedule.sigma(log_snr)
        case "flow":
            return schedule.rates(log_snr)
        case _:  # F: s²/(s² + σ_d²) = sigmoid(−λ − 2 ln σ_d)
            scaled = log_snr + 2 * math.log(schedule.sigma_data)
            return vp_sigma(scaled) / schedule.sigma_data, -vp_alpha(scaled)


def _scaled_gain(target: str, schedule: Schedule, log_snr: Tensor) -> Tensor:
    """The gain times the variance-preserving σ (for the score, times the path's σ too), which is finite at ±inf."""
    alpha, sigma = vp_alpha(log_snr), vp_sigma(log_snr)
    match target:
        case "epsilon":
            return -alpha
        case "score":
            return alpha
        case "x0":
            return sigma
        case "v":
            return -torch.ones_like(log_snr)
        case "flow":
            alpha_rate, sigma_rate = schedule.rates(log_snr)
            return alpha_rate * sigma - sigma_rate * alpha
        case _:  # F
            return torch.hypot(sigma / schedule.sigma_data, alpha)


def _solve(
    target: str, schedule: Schedule, log_snr: Level, prediction: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """(x0, ε) from x = α x0 + σ ε and prediction = c_x x0 + c_ε ε, by Cramer's rule."""
    name, level = target_name(target), widen(as_level(log_snr))
    y, noisy = widen(prediction), widen(x)
    if name == "score":
        name, y = "epsilon", -expand(schedule.sigma(level), noisy) * y
    c_x, c_epsilon = _coefficients(name, schedule, level)
    # On the variance-preserving scale the determinant is minus the scaled gain and cannot overflow.
    scaled_x = noisy / expand(torch.hypot(schedule.alpha(level), schedule.sigma(level)), noisy)
    alpha, sigma = expand(vp_alpha(level), noisy), expand(vp_sigma(level), noisy)
    determinant = -expand(_scaled_gain(name, schedule, level), noisy)
    x0 = (expand(c_epsilon, noisy) * scaled_x - sigma * y) / determinant
    epsilon = (alpha * y - expand(c_x, noisy) * scaled_x) / determinant
    return x0.to(x.dtype), epsilon.to(x.dtype)
