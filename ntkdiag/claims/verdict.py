"""The verdict on a claim: the one rule that turns an effect, its interval and its p-value into one of three words.

Thresholds are fixed here, before any data is seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
# Family-wise error rate of support, after Holm's correction.
LEVEL = 0.05
# Smallest effect that counts: a factor of 1.1.
THRESHOLD = math.log(1.1)


@dataclass(frozen=True)
class ClaimResult:
    """What the test of one claim found.

    Attributes:
        effect: Effect size, a difference of natural logarithms; positive in the claimed direction.
        low, high: 90% interval of the effect (two one-sided tests at 5%).
        p_value: One-sided, from permuted bucket labels; NaN when the claim cannot be tested on this model.
        test: What was done.
        note: What a reader must know.
        threshold: Smallest effect that counts.
    """

    effect: float
    low: float
    high: float
    p_value: float
    test: str
    note: str
    threshold: float = THRESHOLD


def verdict(result: ClaimResult, p_holm: float) -> str:
    """Decide a claim.

    Supported: p_holm ≤ 0.05 and the whole interval lies above the threshold. Contradicted: the whole interval lies below
    it. Otherwise inconclusive: there is too little data for the effect, or nothing to test. Only support is corrected for
    the number of claims; a contradiction is wrong in at most 5% of cases for each claim.

    Args:
        result: Of the claim's test.
        p_holm: Its p-value, corrected for the number of claims (`p_values.holm`).

    Returns:
        supported, contradicted or inconclusive.
    """
    if math.isnan(result.p_value):
        return INCONCLUSIVE
    if p_holm <= LEVEL and result.low > result.threshold:
        return SUPPORTED
    return CONTRADICTED if result.high < result.threshold else INCONCLUSIVE


def all_of(results: Sequence[ClaimResult]) -> ClaimResult:
    """The result of a claim that needs every one of several parts (intersection-union test, Berger 1982).

    The smallest effect decides: the claim is supported only if every part is, and contradicted if any part is. A part
    that cannot be tested leaves the whole claim untested.

    Args:
        results: Of the parts, at least one.
    """
    for part in results:
        if math.isnan(part.p_value):
            return part
    return ClaimResult(
        effect=min(part.effect for part in results),
        low=min(part.low for part in results),
        high=min(part.high for part in results),
        p_value=max(part.p_value for part in results),
        test="; ".join(dict.fromkeys(part.test for part in results)),
        note=" ".join(dict.fromkeys(part.note for part in results)),
    )


def untestable(why: str) -> ClaimResult:
    """The result of a claim that no data of this model could decide, for the reason given."""
    nan = math.nan
    return ClaimResult(nan, nan, nan, nan, test="none", note=f"Cannot be tested: {why}.")
