"""Whether a curve of weights rises or falls with log-SNR, and its mean under the density that training samples from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights.audit.audit_finding import AuditFinding
from ntkdiag.weights.audit.batch_checks import Curve
from ntkdiag.weights.tables.mean import mean_on_grid

# Relative slack of a trend: rounding, and the cells of a table.
_SLACK = 1e-6
_NEAR_ONE = 0.05
# Share of the mean that the last nat at either end may carry before the mean depends on where it is cut.
_TAIL = 0.02


def trend(values: Tensor) -> str:
    """ "constant", "rising" or "falling" with log-SNR, "neither", or "unknown" where values are not finite."""
    if not torch.isfinite(values).all():
        return "unknown"
    slack = _SLACK * values.abs().max()
    steps = values.diff()
    if (values - values[0]).abs().max() <= slack:
        return "constant"
    if (steps >= -slack).all():
        return "rising"
    return "falling" if (steps <= slack).all() else "neither"


def check_mean(curve: Curve, schedule: Schedule) -> tuple[float, list[AuditFinding]]:
    """The mean weight over the noise levels of an `Argument`, as training draws them.

    Returns:
        The mean, NaN if a weight is not finite, and what it does to the learning rate.
    """
    findings: list[AuditFinding] = []
    if schedule.discrete:  # every step is as likely as any other, whatever its distance in log-SNR
        mean = curve.weight.mean().item()
    else:
        density = schedule.density(curve.log_snr)
        mean = mean_on_grid(curve.weight, curve.log_snr, density)
        findings += _tails(curve, density, mean, schedule) if mean > 0 else []
    if findings or not 0 < mean < math.inf or abs(mean - 1) <= _NEAR_ONE:
        return mean, findings
    text = (
        f"mean weight {mean:.3g} under '{schedule.name}': gradients are {mean:.3g} times as large, which acts like "
        "a learning rate of as many times under SGD and shifts gradient clipping under Adam"
    )
    return mean, [AuditFinding("mean_not_one", "warning", text)]


def _tails(curve: Curve, density: Tensor, mean: float, schedule: Schedule) -> list[AuditFinding]:
    """The ends of the range that carry so much of the mean that it goes on growing beyond them."""
    findings = []
    integral = mean * torch.trapezoid(density, curve.log_snr).item()
    for index, end in ((0, schedule.support[0]), (-1, schedule.support[1])):
        share = (curve.weight[index] * density[index]).item() / integral
        if math.isinf(end) and share > _TAIL:
            where = curve.log_snr[index].item()
            text = (
                f"{share:.0%} of the mean weight comes from one nat of log-SNR at {where:.3g}: the weight grows as fast "
                "as its noise level becomes rare, so single samples dominate a batch"
            )
            findings.append(AuditFinding("mean_unbounded", "warning", text, where))
    return findings
