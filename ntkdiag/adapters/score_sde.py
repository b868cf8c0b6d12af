"""Networks of score_sde (Song et al. 2021), with the SDE object that they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntkdiag.adapters.reading import Calling, OfLevel, Reading, first_channels, require_module, sigma_of
from ntkdiag.errors import InputError, first_line
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.continuous import EDM
from ntkdiag.process.schedules.discrete import LogSNRTable

# Steps between the times at which the SDE is asked for its mean and standard deviation.
_GRID = 1000
# Networks of variance-preserving SDEs are called with 999 t.
_LAST_STEP = 999.0


def score_sde(network: Any, sde: Any) -> Reading:
    """The reading of a network with its SDE; see `Denoiser.from_score_sde`."""
    module = require_module("network", network)
    times, alpha, sigma = _marginals(sde)
    if bool((alpha == 1).all()):
        call = Calling(_invoke, sigma_of, "σ")
        return Reading(module, _exploding(sigma), "score", call)
    levels = 2 * (alpha / sigma).log()
    total = torch.hypot(alpha, sigma)
    preserving = bool(((total - 1).abs() < 1e-4).all())
    closed_form = _closed_form(sde) if preserving else None
    time = closed_form or _interpolated(levels, times * _LAST_STEP)
    scale = None if preserving else _interpolated(levels, total)
    schedule = LogSNRTable(tuple(levels.tolist()))
    # Its score is −output/σ, so the output itself is ε.
    return Reading(module, schedule, "epsilon", Calling(_invoke, time, "999 t", scale))


def _marginals(sde: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Times t (without 0), α and σ there, [n] each in float64."""
    last = float(getattr(sde, "T", 1.0))
    times = torch.linspace(0, last, _GRID + 1, dtype=torch.float64)[1:]
    try:
        mean, deviation = sde.marginal_prob(torch.ones(_GRID, 1, 1, 1, dtype=torch.float64), times)
        return times, mean.flatten().double(), deviation.flatten().double()
    except Exception as error:
        raise InputError(
            "sde", expected="an SDE with marginal_prob(x, t) → mean, std and T", got=first_line(error)
        ) from error


def _exploding(sigma: Tensor) -> Schedule:
    """The exploding path, whose ln σ is uniform in training: a normal density of that mean and standard deviation."""
    logarithms = sigma.log()
    spread = float(logarithms.max() - logarithms.min())
    return EDM(1.0, float(logarithms.mean()), spread / 12**0.5)


def _closed_form(sde: Any) -> OfLevel | None:
    """999 t for the linear β(t) of VPSDE: ln ᾱ = −t²(β₁ − β₀)/2 − t β₀ (equation 33)."""
    first, last = getattr(sde, "beta_0", None), getattr(sde, "beta_1", None)
    if first is None or last is None or last == first:
        return None

    def time(log_snr: Tensor) -> Tensor:
        fallen = torch.nn.functional.softplus(-log_snr)  # −ln ᾱ
        t: Tensor = 2 * fallen / (first + torch.sqrt(first**2 + 2 * (last - first) * fallen))
        return _LAST_STEP * t

    return time


def _interpolated(levels: Tensor, values: Tensor) -> OfLevel:
    """A function of log-SNR through points whose levels decrease."""
    known, wanted = levels.flip(0).numpy(), values.flip(0).numpy()

    def function(log_snr: Tensor) -> Tensor:
        found = np.interp(log_snr.detach().double().cpu().numpy(), known, wanted)
        return torch.as_tensor(found).to(log_snr)

    return function


def _invoke(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    return first_channels(network(x, time, **cond), x)
