"""The mean of a weight under a density of log-SNR: over all that training samples, or over a range."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.discrete import log_snr_of_steps

# Quadrature over quantiles u = sigmoid(z): z in ±32 leaves e^−32 of the probability out, and a step of
# 1/64 integrates a kink such as min-SNR's to 1e-5.
_REACH = 32.0
_INTERVALS = 4096

# Largest integrand at the ends of ±32, as a share of the mean, that counts as zero there.
_NEGLIGIBLE = 1e-4


def density_mean(weight: Callable[[Tensor], Tensor], schedule: Schedule, what: str) -> float:
    """E w(λ) with λ drawn as training on `schedule` draws it.

    Args:
        weight: Weights for log-SNR in float64.
        schedule: Discrete: the plain mean over its steps. Continuous: quadrature over the quantiles.
        what: The name of the weights, for the message.

    Returns:
        The mean, relative error about 1e-5.

    Raises:
        InputError: the mean is infinite, or most of it comes from log-SNR that training hardly ever draws.
    """
    if schedule.discrete:
        return weight(log_snr_of_steps(schedule)).mean().item()
    logit = torch.linspace(-_REACH, _REACH, _INTERVALS + 1, dtype=torch.float64)
    # du = u(1 − u) dz: as an integral over z the trapezoid rule resolves ∫ w(λ(u)) du to its very ends.
    mass = torch.sigmoid(logit) * torch.sigmoid(-logit)
    integrand = weight(schedule.quantile(torch.sigmoid(logit))) * mass
    mean = torch.trapezoid(integrand, logit).item()
    if max(integrand[0].item(), integrand[-1].item()) > _NEGLIGIBLE * mean:
        raise InputError(
            f"mean of {what} under schedule '{schedule.name}'",
            expected="a finite mean",
            got="a weight that grows as fast as its log-SNR becomes rare",
            fix="Bound the weight with {clip}, use a schedule with bounded log-SNR, or give {normalise}.",
            arguments={"clip": None, "normalise": False},
        )
    return mean


def mean_on_grid(weight: Tensor, log_snr: Tensor, density: Tensor) -> float:
    """Mean of weights over a range of log-SNR under a density, by the trapezoid rule.

    Args:
        weight: Weights [n], float64.
        log_snr: The range, ascending [n].
        density: ≥ 0 [n]; it need not integrate to 1 over the range.

    Returns:
        ∫ w p dλ / ∫ p dλ; NaN where a weight is NaN or the density is zero everywhere.
    """
    return (torch.trapezoid(weight * density, log_snr) / torch.trapezoid(density, log_snr)).item()
