"""Verdicts on a recipe: several training seeds of the same recipe, where a single network has an answer only.

One trained network is one observation. Student's t over seeds tests its effects (differences of natural logarithms,
positive for a fall) against the margin ln 1.1; Holm's correction (1979) counts all claims and ends. Margin and level are
fixed here, before any data is seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

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
        p_absent: p-value of the equivalence test (the larger of two one-sided ones): |effect| is at least the margin.
        seeds: Number of seeds.
    """

    effect: float
    low: float
    high: float
    p_supported: float
    p_contradicted: float
    p_absent: float
    seeds: int


def over_seeds(effects: Sequence[float] | Array, *, least: float = MARGIN) -> SeedTest:
    """Test the effects of several training seeds.

    Args:
        effects: One number a seed, [S], S ≥ 5, differences of natural logarithms.
        least: What a supported effect must exceed, and a contradicted one be below minus this: the margin, or 0 for a slope.

    Raises:
        InputError: fewer than 5 seeds, numbers that are not finite, a negative `least`.
    """
    values = real_array(np.asarray(effects, dtype=float), "effects of seeds")
    require_number("least", least, at_least=0)
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
        return float(stats.t.sf((mean - bound) / error, freedom))

    reach = quantile(1 - 2 * LEVEL, freedom) * error
    return SeedTest(
        effect=mean,
        low=mean - reach,
        high=mean + reach,
        p_supported=above(least),
        p_contradicted=1 - above(-least) if error else float(mean >= -least),
        p_absent=max(above(-MARGIN), 1 - above(MARGIN) if error else float(mean >= MARGIN)),
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
    """The verdict on each of several claims that are examined together.

    Args:
        tests: Claim (and end) → its test.

    Returns:
        Claim → supported, contradicted, absent or inconclusive. Each of the three definite words is corrected for the number
        of claims by Holm's method, so that it is used wrongly for any claim in at most 5% of recipes.
    """
    words = {SUPPORTED: "p_supported", CONTRADICTED: "p_contradicted", ABSENT: "p_absent"}
    corrected = {
        word: holm([getattr(test, field) for test in tests.values()]) for word, field in words.items()
    }
    return {
        claim: next((word for word in words if corrected[word][position] <= LEVEL), INCONCLUSIVE)
        for position, claim in enumerate(tests)
    }


def holm(p_values: Sequence[float]) -> Array:
    """Holm's step-down adjustment: the chance of any wrong rejection stays below the level."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def between_targets(logs: Array, *rulers: Array) -> Array:
    """Slopes of ln S on rulers between recipes that differ in their target (or training density), a row a seed.

    Networks of the same seed have the same initialisation and inputs, so whatever the noise level does to all of them alike
    is removed by subtracting, in each bucket, the mean over recipes; least squares of what is left gives the slopes.

    Args:
        logs: ln of a statistic, [recipes, seeds, buckets].
        rulers: ln of what it may follow (recoverable share, training density), each [recipes, buckets].

    Returns:
        [seeds, rulers].

    Raises:
        InputError: one recipe, shapes that do not fit, or rulers that do not differ between recipes or that are linearly
            dependent there, so that their slopes cannot be told apart.
    """
    values = real_array(logs, "logarithms of a statistic")
    if values.ndim != 3 or len(values) < 2:
        raise InputError(
            "logarithms of a statistic",
            expected="[recipes, seeds, buckets] of at least 2 recipes",
            got=f"shape {list(values.shape)}",
        )
    columns, constant = [], False
    for ruler in rulers:
        given = real_array(ruler, "ruler")
        if given.shape != (values.shape[0], values.shape[2]):
            expected = f"shape [{values.shape[0]}, {values.shape[2]}], recipes × buckets"
            raise InputError("ruler", expected=expected, got=f"shape {list(given.shape)}")
        columns.append((given - given.mean(0)).ravel())
        constant |= bool(np.abs(columns[-1]).max() <= 1e-9 * np.abs(given).max())  # up to rounding
    design = np.stack(columns, 1)
    if constant or np.linalg.cond(design / np.linalg.norm(design, axis=0)) > _DEPENDENT:
        raise InputError(
            "rulers",
            expected="rulers that differ between recipes, each in its own way",
            got="rulers that are constant or proportional to each other there",
            fix="Add recipes with another target or another training density.",
        )
    within = (values - values.mean(0)).swapaxes(0, 1).reshape(values.shape[1], -1)
    slopes: Array = np.linalg.lstsq(design, within.T, rcond=None)[0].T
    return slopes


# Condition number beyond which two rulers are one.
_DEPENDENT = 100.0
