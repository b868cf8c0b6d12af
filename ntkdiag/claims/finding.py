"""Finding: the outcome of testing one claim, and the one rule that turns numbers into a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
LEVEL = 0.05  # family-wise, after Holm
# Smallest effect that counts: a factor of 1.1. Fixed here, before any data.
THRESHOLD = math.log(1.1)


@dataclass(frozen=True)
class Finding:
    """One tested claim.

    Attributes:
        claim: C1, C2, ...
        statement: What is claimed, in words.
        effect: Effect size, a difference of natural logarithms; positive in the claimed direction.
        low, high: 90% interval of the effect (two one-sided tests at 5%).
        p_value: One-sided, from permuted bucket labels; NaN when the claim cannot be tested on this model.
        test: What was done.
        note: What a reader must know.
        threshold: Smallest effect that counts.
    """

    claim: str
    statement: str
    effect: float
    low: float
    high: float
    p_value: float
    test: str
    note: str
    threshold: float = THRESHOLD

    def verdict(self, p_holm: float) -> str:
        """supported: p_holm ≤ 0.05 and the whole interval above the threshold; contradicted: the whole interval below it.

        Anything else is inconclusive: too little data for the effect that is there, or nothing to test. Only support is
        corrected for the number of claims; a contradiction is wrong in at most 5% of cases for each.
        """
        if math.isnan(self.p_value):
            return INCONCLUSIVE
        if p_holm <= LEVEL and self.low > self.threshold:
            return SUPPORTED
        return CONTRADICTED if self.high < self.threshold else INCONCLUSIVE


def all_of(findings: Sequence[Finding]) -> Finding:
    """The finding for a claim that needs all of several findings (intersection-union test, Berger 1982).

    The smallest effect decides: supported only if every part is, contradicted if any part is. A part that cannot be
    tested leaves the whole untested.
    """
    for part in findings:
        if math.isnan(part.p_value):
            return part
    return Finding(
        findings[0].claim,
        findings[0].statement,
        effect=min(part.effect for part in findings),
        low=min(part.low for part in findings),
        high=min(part.high for part in findings),
        p_value=max(part.p_value for part in findings),
        test="; ".join(dict.fromkeys(part.test for part in findings)),
        note=" ".join(dict.fromkeys(part.note for part in findings)),
    )


def untestable(claim: str, statement: str, why: str) -> Finding:
    """A finding that no data of this model could decide."""
    nan = math.nan
    return Finding(claim, statement, nan, nan, nan, nan, test="none", note=f"Cannot be tested: {why}.")
