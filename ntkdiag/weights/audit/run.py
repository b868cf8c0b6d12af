"""audit: which rule a weight function computes on a target, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights.audit.audit_finding import AuditFinding
from ntkdiag.weights.audit.batch_checks import Curve, measure
from ntkdiag.weights.audit.identify import Expectation, Identity, identify
from ntkdiag.weights.audit.limits_and_precision import check_curve, check_ends, check_precision
from ntkdiag.weights.audit.mean_and_trend import check_mean, trend
from ntkdiag.weights.audit.result import Audit, worst_first
from ntkdiag.weights.audit.weight_function import WeightFunction
from ntkdiag.weights.rules.catalogue import find
from ntkdiag.weights.rules.effective import effective_of
from ntkdiag.weights.rules.evaluate import PATH_FREE_TARGETS, depends_on_schedule
from ntkdiag.weights.source import WeightSource


def audit(
    weights: Callable[[Any], Any] | WeightSource | Path | str,
    target: str | None = None,
    *,
    rule: str | None = None,
    argument: str = "snr",
    schedule: Any = None,
    **parameters: float | str,
) -> Audit:
    """Find out which rule a weight function computes, and what is wrong with it.

    The function is called on batches of its argument and compared with every rule of the catalogue, whose
    parameters are fitted, and with the mistakes known from public code. Weights that agree to one part in a
    thousand, up to one constant factor, count as equal. Of several readings the simplest is reported: a rule before
    a mistake, defaults before fitted parameters; a parameter that no weight shows explains nothing.

    Args:
        weights: A function from a batch [n] to weights [n], tensors or numpy arrays; or a weight table or
            other `WeightSource`, or the path of a table (.csv, .json), which are read by log-SNR.
        target: What the network predicts, whose squared error the weights multiply; a table's own if
            left out.
        rule: The rule that the function should compute, if known.
        argument: What the function takes: "snr" α²/σ²; "log_snr"; "sigma", the noise level σ/α of EDM and
            k-diffusion; or "timesteps", the schedule's own time: whole steps of a table, t in [0, 1] of
            a continuous path (called sigmas in flow scripts).
        schedule: A `Schedule` or a scheduler object of the diffusers library, from which training samples and
            at whose noise levels the function is evaluated. Needed for timesteps and for the targets score,
            flow and F; without it the function is evaluated at log-SNR from −15 to 15.
        **parameters: Parameters that the rule should have, such as gamma=5.

    Returns:
        An `Audit`; its `ok` is False if any finding is a mistake.

    Raises:
        InputError: no such rule, argument or target; a schedule that is missing; a file that is not a table;
            a function that fails on every input.

    Example:
        >>> audit(lambda snr: snr.clamp(max=5) / (snr + 1), "v", rule="min_snr", gamma=5).ok
        True
        >>> audit(lambda snr: snr.clamp(max=5), "v", rule="min_snr", gamma=5).ok
        False
    """
    expected = _expectation(rule, parameters)
    examined = WeightFunction.of(weights, target, argument, schedule)
    path = examined.argument.schedule
    if path is None and _needs_schedule(examined.target, expected):
        raise InputError(
            "schedule",
            expected="the schedule trained on",
            got="none",
            fix="Pass it, for example {schedule}.",
            arguments={"schedule": "ntkdiag.schedules.flow()"},
        )
    curve, findings = measure(examined)
    identity = identify(_written(examined, curve), examined.target, path, expected)
    match = identity.matches[0] if identity.matches else None
    findings += _other_target(examined)
    findings += identity.findings + check_curve(curve) + check_ends(examined, match)
    findings += check_precision(examined, curve)
    mean = None
    if path is not None:
        mean, more = check_mean(curve, path)
        findings += more
    table = _table(curve, examined.target, path, identity)
    return Audit(
        target=examined.target,
        argument=examined.argument.name,
        findings=worst_first(findings),
        rule=match.name if match else None,
        reference=identity.reference.name if identity.reference else None,
        curve=table,
        mean=mean,
        trend=trend(curve.weight),
        effective_trend=None
        if path is None
        else trend(torch.from_numpy(table["effective"].to_numpy(copy=True))),
    )


def _expectation(rule: str | None, parameters: dict[str, float | str]) -> Expectation:
    if rule is None:
        if parameters:
            raise InputError("rule", expected=f"the rule that has {', '.join(parameters)}", got="none")
        return Expectation(None, {})
    found = find(rule)
    settled = found.settle(parameters)
    return Expectation(found, {name: settled[name] for name in parameters})


def _needs_schedule(target: str, expected: Expectation) -> bool:
    if expected.rule is None:
        return target not in PATH_FREE_TARGETS
    return depends_on_schedule(expected.rule, target, expected.rule.settle(expected.parameters))


def _written(examined: WeightFunction, curve: Curve) -> Curve:
    """A measured table is compared at its own rows: between them it is only interpolated."""
    table = examined.table
    return curve if table is None or table.rule is not None else Curve(table.log_snr, table.weight)


def _other_target(examined: WeightFunction) -> list[AuditFinding]:
    made_for = (
        getattr(examined.function, "target", examined.target)
        if examined.table is not None
        else examined.target
    )
    if made_for == examined.target:
        return []
    text = f"the table is for {made_for}, and is applied to {examined.target}"
    return [AuditFinding("table_for_another_target", "mistake", text)]


def _table(curve: Curve, target: str, schedule: Schedule | None, identity: Identity) -> pd.DataFrame:
    columns = {"log_snr": curve.log_snr, "weight": curve.weight}
    found = identity.reference
    if found is not None:
        log_reference = found.candidate.log_weight(curve.log_snr, schedule, found.values)
        columns["reference"] = found.factor * log_reference.exp()
        columns["ratio"] = curve.weight / columns["reference"]
    if schedule is not None:
        columns["effective"] = effective_of(curve.weight, target, schedule, curve.log_snr)
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})
