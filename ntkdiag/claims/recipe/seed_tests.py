"""Tests over training seeds, of which each is one observation.

Student's t over seeds tests effects (differences of natural logarithms, positive for a fall) against the margin ln 1.1;
Holm's correction (1979) counts all claims and ends. Margin and level are fixed here, before any data is seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ntkdiag.confidence import quantile
from ntkdiag.errors import InputError, require_number
from ntkdiag.spectra.dense.eigen import Array, real_array

SUPPORTED, CONTRADICTED, ABSENT, INCONCLUSIVE = "supported", "contradicted", "absent", "inconclusive"
# Smallest effect that counts: a factor of 1.1.
MARGIN = math.log(1.1)
# Each kind of wrong verdict (supported, contradicted, absent) in at most this share of recipes.
LEVEL = 0.05
MIN_SEEDS = 5


@dataclass(frozen=True)
class SeedTest:
    """Effects of several training seeds, tested.

    Attributes:
        effect: Their mean; positive for a fall.
        low, high: 90% interval of the mean (two one-sided tests at 5%).
        p_supported: One-sided p-value against an effect of at most the margin (of at most 0 for a slope).
        p_contradicted: One-sided p-value against an effect of at least −margin (of at least 0 for a slope).
        p_absent: p-value of the equivalence test (the larger of two one-sided ones): |effect| is at least `margin`.
        seeds: Number of seeds.
    """

    effect: float
    low: float
    high: float
    p_supported: float
    p_contradicted: float
    p_absent: float
    seeds: int


def over_seeds(
    effects: Sequence[float] | Array, *, least: float = MARGIN, margin: float = MARGIN
) -> SeedTest:
    """Test the effects of several training seeds.

    Args:
        effects: One number a seed, [S], S ≥ 5, differences of natural logarithms.
        least: What a supported effect must exceed, and a contradicted one be below minus this: ln 1.1, or 0 for a slope.
        margin: An absent effect lies within plus and minus this.

    Raises:
        InputError: fewer than 5 seeds, numbers that are not finite, a negative `least` or `margin`.
    """
    values = real_array(np.asarray(effects, dtype=float), "effects of seeds")
    require_number("least", least, at_least=0)
    require_number("margin", margin, at_least=0)
    if values.ndim != 1 or len(values) < MIN_SEEDS:
        raise InputError(
            "effects of seeds",
            expected=f"at least {MIN_SEEDS} training seeds, shape [S]",
            got=f"shape {list(values.shape)}",
        )
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    freedom = len(values) - 1

    def above(bound: float) -> float:
        """p-value against a mean of at most `bound`."""
        if error == 0:
            return 0.0 if mean > bound else 1.0
        return float(special.stdtr(freedom, (bound - mean) / error))

    reach = quantile(1 - 2 * LEVEL, freedom) * error
    return SeedTest(
        effect=mean,
        low=mean - reach,
        high=mean + reach,
        p_supported=above(least),
        p_contradicted=1 - above(-least) if error else float(mean >= -least),
        p_absent=max(above(-margin), 1 - above(margin) if error else float(mean >= margin)),
        seeds=len(values),
    )


def all_parts(parts: Sequence[SeedTest]) -> SeedTest:
    """The test of a claim that needs every one of several parts.

    Supported and absent only if all parts are (intersection-union test, Berger 1982: the largest p-value); contradicted if
    any part is (the smallest p-value, times the number of parts).

    Args:
        parts: At least one, of the same seeds.

    Returns:
        Effect and interval of the part with the smallest effect.
    """
    weakest = min(parts, key=lambda part: part.effect)
    return SeedTest(
        effect=weakest.effect,
        low=weakest.low,
        high=weakest.high,
        p_supported=max(part.p_supported for part in parts),
        p_contradicted=min(1.0, len(parts) * min(part.p_contradicted for part in parts)),
        p_absent=max(part.p_absent for part in parts),
        seeds=weakest.seeds,
    )


def decide(tests: Mapping[str, SeedTest]) -> dict[str, str]:
    """The verdict on each of several claims that are examined together; `decided` gives their p-values too."""
    return {claim: one.word for claim, one in decided(tests).items()}


@dataclass(frozen=True)
class Verdict:
    """A word and how sure it is.

    Attributes:
        word: supported, contradicted, absent or inconclusive.
        p: p-value of that word, corrected for the number of claims; where it is inconclusive, the smallest of the three.
    """

    word: str
    p: float


def decided(tests: Mapping[str, SeedTest]) -> dict[str, Verdict]:
    """The verdict on each of several claims that are examined together.

    Args:
        tests: Claim (and end) → its test.

    Returns:
        Claim → its verdict. Each of the three definite words is corrected for the number of claims by Holm's method, so that
        it is used wrongly for any claim in at most 5% of recipes. A slope that differs from zero and is too small to count
        is absent.
    """
    words = {ABSENT: "p_absent", SUPPORTED: "p_supported", CONTRADICTED: "p_contradicted"}
    corrected = {
        word: holm([getattr(test, field) for test in tests.values()]) for word, field in words.items()
    }
    found = {}
    for position, claim in enumerate(tests):
        p_values = {word: float(values[position]) for word, values in corrected.items()}
        word = next((word for word, p in p_values.items() if p <= LEVEL), INCONCLUSIVE)
        found[claim] = Verdict(word, p_values.get(word, min(p_values.values())))
    return found


def holm(p_values: Sequence[float]) -> Array:
    """Holm's step-down adjustment: the chance of any wrong rejection stays below the level."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted
