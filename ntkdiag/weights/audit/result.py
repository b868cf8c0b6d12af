"""Audit: the result of an audit, with its findings and the curve of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ntkdiag.provenance import jsonable
from ntkdiag.weights.audit.audit_finding import SEVERITIES, AuditFinding


@dataclass(frozen=True)
class Audit:
    """The result of `audit`.

    Attributes:
        target: What the weights are applied to.
        argument: What they are a function of.
        findings: The worst first; names as in `audit_finding.NAMES`.
        rule: The rule the weights equal up to a factor, such as "min_snr(gamma=5) on v", or None.
        reference: The rule the curve is compared with: the one named, else the one equalled, else the nearest.
        curve: A row a noise level: log_snr; weight; reference, scaled to the weights; ratio, weight over
            reference; and with a schedule effective, w_ε(λ)·p(λ), what a unit of log-SNR contributes to
            the ε objective.
        mean: Mean weight under the schedule's density, cut at log-SNR ±15; None without a schedule.
        trend: How the weight goes with log-SNR: constant, rising, falling, neither, or unknown.
        effective_trend: The same of the effective weight; None without a schedule.

    Example:
        >>> found = nd.audit(lambda snr: snr.clamp(max=5) / snr, "epsilon")
        >>> found.rule
        'min_snr(gamma=5) on epsilon'
    """

    target: str
    argument: str
    findings: tuple[AuditFinding, ...]
    rule: str | None
    reference: str | None
    curve: pd.DataFrame
    mean: float | None
    trend: str
    effective_trend: str | None

    @property
    def ok(self) -> bool:
        """Whether no finding is a mistake."""
        return all(finding.severity != "mistake" for finding in self.findings)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the findings."""
        return tuple(finding.name for finding in self.findings)

    def describe(self) -> dict[str, Any]:
        """Everything, as JSON can hold it: NaN and infinities as text."""
        document = {
            "ok": self.ok,
            "target": self.target,
            "argument": self.argument,
            "rule": self.rule,
            "reference": self.reference,
            "mean": self.mean,
            "trend": self.trend,
            "effective_trend": self.effective_trend,
            "findings": [finding.describe() for finding in self.findings],
            "curve": self.curve.to_dict("list"),
        }
        plain: dict[str, Any] = jsonable(document)
        return plain

    def __str__(self) -> str:
        head = f"weights on {self.target}, a function of {self.argument}: {'ok' if self.ok else 'not ok'}"
        about = f"with log-SNR the weight is {self.trend}"
        if self.effective_trend is not None:
            about += f", the effective weight {self.effective_trend}"
        return "\n".join([head, about, *(f"  {finding}" for finding in self.findings)])


def worst_first(findings: list[AuditFinding]) -> tuple[AuditFinding, ...]:
    """Sorted by severity, otherwise in the order they were found."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
