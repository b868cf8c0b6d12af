"""The test behind the claims: does a kernel statistic fall where recoverability falls?

Effect: a contrast of ln(statistic) between thirds of the buckets, relative to the untrained control. Its interval is the
jackknife of `ntkdiag.spectra` over paired samples (and probes); its p-value comes from permuted bucket labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.p_values import TIE, kendall, permutation_p_value
from ntkdiag.claims.verdict import ClaimResult, untestable
from ntkdiag.spectra.dense.eigen import Array

TEST = "Kendall's τ with R_y over permuted buckets; contrast of thirds with a jackknife over paired samples"


def falls(statistic: str, evidence: Evidence) -> ClaimResult:
    """Test that a statistic falls where R_y falls: most against least recoverable third of the buckets.

    Args:
        statistic: One of those that the claim reads.
        evidence: What the claim is given.

    Returns:
        A result whose effect is a difference of natural logarithms.
    """
    weights = thirds(evidence.amplitude)
    if not weights.any():
        return untestable("the amplitude is the same in every bucket for this target")

    def score(values: Array) -> Array:
        return kendall(evidence.amplitude, values)

    found = compare(statistic, evidence, weights, score, TEST)
    if math.isnan(found.p_value):
        return found
    against = (
        "relative to the untrained control" if evidence.controlled else "no untrained control was measured"
    )
    note = (
        f"{statistic.replace('_', ' ')}: ×{math.exp(-found.effect):.2g} from the most to the least recoverable third, "
        f"τ = {signed(float(score(evidence.logs(statistic))))}; {against}."
    )
    return replace(found, note=note)


def compare(
    statistic: str, evidence: Evidence, weights: Array, score: Callable[[Array], Array], test: str
) -> ClaimResult:
    """Test that a contrast of ln(statistic) is positive; the general form of `falls`.

    Args:
        statistic, evidence: As in `falls`.
        weights: Weights of the buckets in the contrast, [B], of sum 0.
        score: Score of a trend for the permutation test: values [..., B] → [...]; large speaks for the claim.
        test: What is done, in words.

    Returns:
        A result with an empty note.
    """
    logs = evidence.logs(statistic)
    if not np.isfinite(logs).all():
        return untestable("the kernel is zero in some bucket")
    found = evidence.contrast(statistic, weights)
    return ClaimResult(
        effect=found.value,
        low=found.low,
        high=found.high,
        p_value=permutation_p_value(score, logs, evidence.seed),
        test=test,
        note="",
    )


def thirds(ordering: Array) -> Array:
    """Weights over buckets that compare the most recoverable third with the least recoverable third.

    Args:
        ordering: What orders the buckets, such as their recoverability, [B], B ≥ 2.

    Returns:
        [B], summing to 0: the mean over the upper third minus the mean over the lower third. Thirds are rounded up, and
        buckets that tie with the border of a third all belong to it. All zero where the ordering is constant.
    """
    count = len(ordering)
    size = math.ceil(count / 3)
    ordered = np.sort(ordering)
    margin = TIE * np.abs(ordering).max()
    upper = ordering >= ordered[-size] - margin
    lower = ordering <= ordered[size - 1] + margin
    both = upper & lower
    upper, lower = upper & ~both, lower & ~both
    if not (upper.any() and lower.any()):
        return np.zeros(count)
    weights: Array = upper / upper.sum() - lower / lower.sum()
    return weights


def signed(correlation: float) -> str:
    """A correlation with two digits and its sign, for a sentence."""
    return f"{correlation:+.2f}".replace("-", "−")
