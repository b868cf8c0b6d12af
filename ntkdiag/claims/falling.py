"""The test behind the claims: does a kernel statistic fall from one group of buckets to another?

Effect: a contrast of ln(statistic) between buckets, relative to the untrained control. Its interval is the delete-d
jackknife of `ntkdiag.spectra` on paired subsets (and probes); its p-value comes from permuted bucket labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.finding import Finding, untestable
from ntkdiag.claims.trend import contrast, kendall, permutation_p_value, told
from ntkdiag.spectra.dense.eigen import Array

TEST = "Kendall's τ with R_y over permuted buckets; contrast of thirds with a jackknife on paired subsets"


def falling(claim: str, statement: str, statistic: str, evidence: Evidence) -> Finding:
    """Test that a statistic falls where R_y falls: most against least recoverable third of the buckets.

    Args:
        claim, statement: Labels of the finding.
        statistic: trace, top_eigenvalue or effective_rank.
        evidence: See `gather`.

    Returns:
        A `Finding` whose effect is a difference of natural logarithms.
    """
    weights = contrast(evidence.amplitude)
    if not weights.any():
        return untestable(claim, statement, "the amplitude is the same in every bucket for this target")

    def score(values: Array) -> Array:
        return kendall(evidence.amplitude, values)

    found = compared(claim, statement, statistic, evidence, weights, score, TEST)
    if math.isnan(found.p_value):
        return found
    against = (
        "relative to the untrained control" if evidence.controlled else "no untrained control was measured"
    )
    note = (
        f"{statistic.replace('_', ' ')}: ×{math.exp(-found.effect):.2g} from the most to the least recoverable third, "
        f"τ = {told(float(score(evidence.logs(statistic))))}; {against}."
    )
    return replace(found, note=note)


def compared(
    claim: str,
    statement: str,
    statistic: str,
    evidence: Evidence,
    weights: Array,
    score: Callable[[Array], Array],
    test: str,
) -> Finding:
    """Test that a contrast of ln(statistic) is positive; the general form of `falling`.

    Args:
        claim, statement, statistic, evidence: As there.
        weights: Of the buckets, [B], of sum 0.
        score: Score of a trend for the permutation test: values [..., B] → [...].
        test: What is done, in words.

    Returns:
        A `Finding` without a note.
    """
    logs = evidence.logs(statistic)
    if not np.isfinite(logs).all():
        return untestable(claim, statement, "the kernel is zero in some bucket")
    found = evidence.contrast(statistic, weights)
    return Finding(
        claim,
        statement,
        effect=found.value,
        low=found.low,
        high=found.high,
        p_value=permutation_p_value(score, logs, evidence.seed),
        test=test,
        note="",
    )
