"""The test C1 and C2 share: does a kernel statistic fall where the target is less recoverable?

Effect: mean ln(statistic) over the most recoverable third of the buckets minus that over the least recoverable third,
relative to the untrained control; its interval comes from paired subsets, its p-value from permuted bucket labels.
"""

from __future__ import annotations

import math

import numpy as np

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.finding import Finding, interval
from ntkdiag.claims.trend import contrast, kendall, permutation_p_value, permutations

# Smallest fall that counts: a factor of 1.1. Fixed here, before any data.
THRESHOLD = math.log(1.1)


def falling(claim: str, statement: str, statistic: str, evidence: Evidence) -> Finding:
    """Test that `statistic` falls where R_y falls.

    Args:
        claim, statement: Labels of the finding.
        statistic: trace, top_eigenvalue or effective_rank.
        evidence: See `gather`.

    Returns:
        A `Finding` whose effect is a difference of natural logarithms.
    """
    label = statistic.replace("_", " ")
    weights = contrast(evidence.amplitude)
    if not weights.any():
        return untestable(claim, statement, "the amplitude is the same in every bucket for this target")
    series = evidence.net(statistic)
    effect = float(series.full @ weights)
    low, high = interval(series.draws @ weights)
    orders, drawn = permutations(len(series.full), evidence.seed)
    observed = float(kendall(evidence.amplitude, series.full))
    p_value = permutation_p_value(kendall(evidence.amplitude, series.full[orders]), observed, drawn)
    against = "relative to the untrained control" if evidence.control else "no untrained control was measured"
    return Finding(
        claim, statement, effect, low, high, THRESHOLD, p_value,
        test=f"Kendall τ of ln {label} with R_y over permuted buckets; contrast of thirds with paired subsets",
        note=f"{label}: ×{math.exp(-effect):.2g} from the most to the least recoverable third, "
        f"τ = {observed:+.2f}; {against}.",
    )  # fmt: skip


def weakest(findings: list[Finding]) -> Finding:
    """A claim that needs all of several statistics is only as good as the weakest of them (intersection-union test)."""
    worst = min(findings, key=lambda finding: finding.low)
    return Finding(
        worst.claim, worst.statement, worst.effect, worst.low, worst.high, worst.threshold,
        p_value=float(np.max([finding.p_value for finding in findings])),
        test=worst.test,
        note=" ".join(finding.note for finding in findings),
    )  # fmt: skip


def untestable(claim: str, statement: str, why: str) -> Finding:
    """A finding that no data of this model could decide."""
    nan = math.nan
    return Finding(
        claim, statement, nan, nan, nan, THRESHOLD, nan, test="none", note=f"Cannot be tested: {why}."
    )
