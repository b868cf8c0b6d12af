"""The effective weight w_ε(λ)·p(λ): what a loss weight and the sampling of noise levels amount to together."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import require_number
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import target_name
from ntkdiag.weights.rules.catalogue import find
from ntkdiag.weights.rules.evaluate import as_float64, finite_weight, log_gain, log_weight_of, with_limits


def effective(
    rule: str,
    target: str,
    schedule: Schedule,
    log_snr: float | Tensor,
    *,
    clip: float | None = None,
    **parameters: Any,
) -> Tensor:
    """Effective weight w_ε(λ)·p(λ): what a unit of log-SNR contributes to the ε objective.

    Two trainings with the same effective weight, up to a constant, minimise the same objective
    (Kingma & Gao 2023, arXiv 2303.00848, section 3).

    Args:
        rule, target, log_snr, clip, parameters: As for `evaluate`; clip bounds the weight on `target`.
        schedule: The process, whose density p the training samples from.

    Returns:
        Effective weights of the shape of `log_snr`; 0 where the schedule does not sample.

    Raises:
        InputError: as for `evaluate`.

    Example:
        >>> cosine = nd.schedules.cosine()
        >>> levels = torch.tensor([-2.0, 0.0])
        >>> weight = nd.weights.effective("constant_epsilon", "epsilon", cosine, levels)
        >>> bool(torch.allclose(weight, cosine.density(levels)))
        True
    """
    form = find(rule)
    values = form.settle(parameters)
    name = target_name(target)
    log_weight = log_weight_of(form, name, schedule, values)
    ceiling = math.inf if clip is None else math.log(require_number("clip", clip, above=0.0))

    def log_effective(level: Tensor) -> Tensor:
        log_density = schedule.density(level).log()
        on_epsilon = _on_epsilon(log_weight(level).clamp(max=ceiling), name, schedule, level)
        return torch.where(log_density == -math.inf, log_density, on_epsilon + log_density)

    weight = with_limits(log_effective, as_float64(log_snr)).exp()
    return finite_weight(weight, log_snr, None, f"effective weight of rule '{form.name}' on {name}")


def effective_of(weight: Tensor, target: str, schedule: Schedule, log_snr: Tensor) -> Tensor:
    """Effective weight of weights that are given as numbers.

    Args:
        weight: Weights of the squared error of `target` [n], float64.
        target: A target's own name.
        schedule: The process, whose density p the training samples from.
        log_snr: Where the weights apply, finite [n].

    Returns:
        w_ε(λ)·p(λ) [n].
    """
    unit = _on_epsilon(torch.zeros_like(log_snr), target, schedule, log_snr).exp()
    return weight * unit * schedule.density(log_snr)


def _on_epsilon(log_weight: Tensor, target: str, schedule: Schedule, log_snr: Tensor) -> Tensor:
    """ln of the weight on ε that makes the same objective as a weight on `target`."""
    return log_weight + log_gain(target, schedule, log_snr) - log_snr
