"""Checks of NaN, infinite and negative weights, of the limits at SNR 0 and ∞, and of half precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkdiag.weights.audit.audit_finding import AuditFinding
from ntkdiag.weights.audit.batch_checks import Curve
from ntkdiag.weights.audit.fit import TOLERANCE, Fit
from ntkdiag.weights.audit.weight_function import CallFailed, WeightFunction
from ntkdiag.weights.rules.evaluate import with_limits

# Error of a result in half precision, in units of the last place, that a few roundings explain.
_ULPS = 16


def check_curve(curve: Curve) -> list[AuditFinding]:
    """NaN, infinities and negative weights at the noise levels of training."""
    findings = []
    bad = ~torch.isfinite(curve.weight)
    if bad.any():
        findings.append(_where("not_finite", curve, bad))
    negative = curve.weight < 0
    if negative.any():
        findings.append(_where("negative", curve, negative))
    return findings


def check_ends(examined: WeightFunction, match: Fit | None) -> list[AuditFinding]:
    """The weight at SNR 0 and at infinite SNR, where the argument can express them.

    Args:
        examined: The function.
        match: The rule it equals elsewhere, whose limits are expected.
    """
    findings = []
    for end, name in ((-math.inf, "not_finite_at_zero_snr"), (math.inf, "not_finite_at_infinite_snr")):
        if not examined.argument.has(end):
            continue
        weight, limit = examined.at(end), _limit(examined, match, end)
        drawn = examined.argument.reaches(end)
        if not math.isfinite(weight) and (end < 0 or limit is None or math.isfinite(limit)):
            severity = "mistake" if drawn else "warning"
            findings.append(AuditFinding(name, severity, f"{weight:g}{_when(drawn, end)}", end))
        elif (
            end < 0
            and limit is not None
            and not math.isclose(weight, limit, rel_tol=TOLERANCE, abs_tol=1e-12)
        ):
            text = f"{weight:.3g} where the limit of {match.name if match else ''} is {limit:.3g}"
            severity = "mistake" if drawn else "warning"
            findings.append(AuditFinding("wrong_at_zero_snr", severity, text + _when(drawn, end), end))
    return findings


def check_precision(examined: WeightFunction, curve: Curve) -> list[AuditFinding]:
    """Half precision: compared with the same function in double precision at the same rounded argument."""
    argument = examined.argument.of(curve.log_snr)
    if not argument.is_floating_point():
        return []
    findings = []
    for dtype in (torch.float16, torch.bfloat16):
        rounded = argument.to(dtype)
        kind = str(dtype).removeprefix("torch.")
        try:
            half = examined.call(rounded).flatten()
            exact = examined.call(rounded.double()).flatten()
        except CallFailed as failure:
            findings.append(AuditFinding("half_precision", "warning", f"fails in {kind}: {failure}"))
            continue
        if half.shape == exact.shape == curve.weight.shape:
            findings += _compare(curve, half, exact, kind, _ULPS * torch.finfo(dtype).eps)
    return findings


def _compare(curve: Curve, half: Tensor, exact: Tensor, kind: str, tolerance: float) -> list[AuditFinding]:
    lost = torch.isfinite(curve.weight) & ~torch.isfinite(half)
    if lost.any():
        where = curve.log_snr[lost]
        text = (
            f"{half[lost][0].item():g} in {kind} at {int(lost.sum())} noise levels between log-SNR "
            f"{where[0].item():.3g} and {where[-1].item():.3g}, where the argument or a step overflows"
        )
        return [AuditFinding("half_precision", "warning", text, where[0].item())]
    # Below 1e-4 float16 has few digits left, and the weight is small enough to be lost.
    error = torch.where(exact.abs() > 1e-4, (half - exact).abs() / exact.abs(), 0.0).nan_to_num(0.0)
    worst = int(error.argmax())
    if error[worst].item() <= tolerance:
        return []
    place = curve.log_snr[worst].item()
    text = f"{half[worst].item():.3g} in {kind} for {exact[worst].item():.3g}, at log-SNR {place:.3g}"
    return [AuditFinding("half_precision", "warning", text, place)]


def _limit(examined: WeightFunction, match: Fit | None, end: float) -> float | None:
    """The limit of the matching rule, times the factor between the two."""
    if match is None:
        return None
    candidate, schedule = match.candidate, examined.argument.schedule
    level = torch.tensor([end], dtype=torch.float64)
    log_weight = with_limits(lambda x: candidate.log_weight(x, schedule, match.values), level)
    return log_weight.exp().item() * match.factor


def _when(drawn: bool | None, end: float) -> str:
    side = "SNR 0" if end < 0 else "infinite SNR"
    if drawn:
        return f" at {side}, which the schedule draws"
    return (
        f" at {side}, which this schedule does not draw"
        if drawn is False
        else f" at {side}, if it is ever drawn"
    )


def _where(name: str, curve: Curve, bad: Tensor) -> AuditFinding:
    first = int(torch.nonzero(bad)[0])
    where = curve.log_snr[first].item()
    text = f"{curve.weight[first].item():.3g} at log-SNR {where:.3g}, {int(bad.sum())} of {len(bad)} noise levels"
    return AuditFinding(name, "mistake", text, where)
