"""Every closed-form weight by name, evaluated on any target at any log-SNR.

A rule is written on one target, its home, and converted to another by k², the factor between the two
squared errors, so that the objective stays the same. A rule without a home, such as ERD, is another
objective on every target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_number
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import target_name, x0_gain
from ntkdiag.weights.rules.catalogue import Rule, find

# Targets whose gain is a function of log-SNR alone, the same on every path.
PATH_FREE_TARGETS = ("epsilon", "x0", "v")

LogWeight = Callable[[Tensor], Tensor]

# Past this log-SNR every rule is a straight line in λ to the last digit (its bends sit at ln γ, ln k, …),
# and e^{±2·256/2} is still far from the limits of float64.
_FAR = 256.0


def evaluate(
    rule: str,
    target: str,
    log_snr: float | Tensor,
    schedule: Schedule | None = None,
    *,
    clip: float | None = None,
    **parameters: Any,
) -> Tensor:
    """Weight of a rule on the squared error of `target`, not normalised.

    Args:
        rule: A name in `RULES`.
        target: What the network predicts.
        log_snr: Log-SNR, any shape; ±∞ gives the limit.
        schedule: Needed by targets score, flow and F, by the rule "sigmoid" and by some conventions of
            "erd"; it has no effect on the others.
        clip: Upper bound of the weight, for rules without one of their own (such as "debias" on ε).
        **parameters: The rule's own, by name.

    Returns:
        Weights ≥ 0 of the shape, dtype and device of `log_snr` (float64 for a number), computed in float64.

    Raises:
        InputError: unknown rule, target or parameter; a missing schedule; NaN; a weight that is not finite.

    Example:
        >>> nd.weights.evaluate("min_snr", "epsilon", torch.tensor([-2.0, 0.0, 3.0]))  # min(γ / SNR, 1)
        tensor([1.0000, 1.0000, 0.2489])
    """
    form = find(rule)
    values = form.settle(parameters)
    name = target_name(target)
    level = as_float64(log_snr)
    weight = with_limits(log_weight_of(form, name, schedule, values), level).exp()
    at_zero_snr = form.at_zero_snr(**values) if form.at_zero_snr else None
    if at_zero_snr is not None:
        weight = torch.where(level == -math.inf, at_zero_snr, weight)
    return finite_weight(weight, log_snr, clip, f"rule '{form.name}' on {name}")


def log_gain(target: str, schedule: Schedule | None, log_snr: Tensor) -> Tensor:
    """ln k², where loss_target = k²·loss_x0 for the same network function.

    Args:
        target: A target's own name.
        schedule: Needed for score, flow and F.
        log_snr: Finite log-SNR.

    Raises:
        InputError: the target depends on the schedule and none is given.
    """
    if target == "epsilon":
        return log_snr
    if target == "x0":
        return torch.zeros_like(log_snr)
    if target == "v":
        return torch.logaddexp(log_snr, torch.zeros_like(log_snr))
    return 2 * x0_gain(target, _given(schedule, f"target {target} depends on it"), log_snr).abs().log()


def depends_on_schedule(rule: Rule, target: str, parameters: Mapping[str, float | str]) -> bool:
    """Whether a rule with all of its parameters cannot be evaluated on this target without a schedule."""
    try:
        log_weight_of(rule, target, None, parameters)(torch.zeros((), dtype=torch.float64))
    except InputError:
        return True
    return False


def with_limits(log_weight: LogWeight, log_snr: Tensor) -> Tensor:
    """Evaluate ln w, and its limit where log-SNR is ±∞.

    Far out ln w is a straight line in log-SNR: two points give its slope, which decides between a
    weight of 0, a weight of ∞ and a constant.
    """
    infinite = torch.isinf(log_snr)
    if not infinite.any():
        return log_weight(log_snr)
    value = log_weight(torch.where(infinite, 0.0, log_snr))
    for side in (-1.0, 1.0):
        here = infinite & (log_snr * side > 0)
        if here.any():
            near, far = log_weight(log_snr.new_tensor([side * _FAR, 2 * side * _FAR])).tolist()
            value = torch.where(here, _limit(near, far), value)
    return value


def _limit(near: float, far: float) -> float:
    if near == far or abs(far - near) < 1e-9 * _FAR:
        return far
    return math.copysign(math.inf, far - near)


def log_weight_of(
    rule: Rule, target: str, schedule: Schedule | None, parameters: Mapping[str, float | str]
) -> LogWeight:
    """ln of a rule's weight on `target`, for finite log-SNR.

    Args:
        rule: Its formula is converted from its home to `target`.
        target: A target's own name.
        schedule: Needed as in `evaluate`.
        parameters: All of the rule's parameters.

    Raises:
        InputError: a schedule is needed and missing.
    """
    context: dict[str, Any] = {"schedule": schedule, "target": target}
    if rule.requires_schedule:
        context["schedule"] = _given(schedule, f"the formula of rule '{rule.name}' takes it")
    known = {name: context[name] for name in rule.needs}
    home = rule.home
    if home is None or home == target:
        return lambda level: rule.formula(level, **parameters, **known)

    def converted(level: Tensor) -> Tensor:
        gain = log_gain(home, schedule, level) - log_gain(target, schedule, level)
        return rule.formula(level, **parameters, **known) + gain

    return converted


def finite_weight(weight: Tensor, log_snr: float | Tensor, clip: float | None, what: str) -> Tensor:
    """A weight in float64 as a caller gets it: clipped, and in the dtype of `log_snr`.

    Raises:
        InputError: a weight that is not finite, or a clip that is not positive.
    """
    if clip is not None:
        weight = weight.clamp(max=require_number("clip", clip, above=0.0))
    if isinstance(log_snr, Tensor) and log_snr.is_floating_point():
        weight = weight.to(log_snr.dtype)
    bad = ~torch.isfinite(weight)
    if bad.any():
        where = as_float64(log_snr)[bad].flatten()[0].item()
        raise InputError(
            what,
            expected="a finite weight",
            got=f"{weight[bad].flatten()[0].item()} at log-SNR {where:g}",
            fix="Bound the weight with {clip}.",
            arguments={"clip": None},
        )
    return weight


def as_float64(log_snr: float | Tensor) -> Tensor:
    """Log-SNR in float64; refuses NaN."""
    level = torch.as_tensor(log_snr, dtype=torch.float64)
    if torch.isnan(level).any():
        raise InputError("log_snr", expected="numbers", got="NaN")
    return level


def _given(schedule: Schedule | None, reason: str) -> Schedule:
    if schedule is None:
        raise InputError(
            "schedule",
            expected=f"a schedule, because {reason}",
            got="none",
            fix="Pass the one you train with, for example {schedule}.",
            arguments={"schedule": "ntkdiag.schedules.cosine()"},
        )
    return schedule
