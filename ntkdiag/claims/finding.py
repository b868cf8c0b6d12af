"""Finding: the outcome of testing one claim, and the one rule that turns numbers into a verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
LEVEL = 0.05  # family-wise, after Holm


@dataclass(frozen=True)
class Finding:
    """One tested claim.

    Attributes:
        claim: C1, C2, ...
        statement: What is claimed, in words.
        effect: Effect size; positive in the claimed direction.
        low, high: 90% interval of the effect (two one-sided tests at 5%).
        threshold: Smallest effect that counts; the claim is contradicted when the interval excludes it.
        p_value: One-sided, from permuted bucket labels; NaN when the claim cannot be tested on this model.
        test: What was done.
        note: What a reader must know.
    """

    claim: str
    statement: str
    effect: float
    low: float
    high: float
    threshold: float
    p_value: float
    test: str
    note: str

    def verdict(self, p_holm: float) -> str:
        """supported: p_holm ≤ 0.05 and the whole interval above the threshold; contradicted: the whole interval below it.

        Anything else is inconclusive: too little data for the effect that is there.
        """
        if np.isnan(self.p_value):
            return INCONCLUSIVE
        if p_holm <= LEVEL and self.low > self.threshold:
            return SUPPORTED
        return CONTRADICTED if self.high < self.threshold else INCONCLUSIVE


def interval(draws: NDArray[np.float64], level: float = 0.9) -> tuple[float, float]:
    """Central interval of draws."""
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)
