"""Trends over buckets: rank correlation, permuted bucket labels, Page's L over seeds, equivalence, many tests at once.

A bucket is one observation here, or, where networks were trained from several seeds, a bucket of a seed; intervals over
samples are made elsewhere, from paired resampling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import page_trend_test
from scipy.stats import t as student

from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array

EXHAUSTIVE = 7  # up to 7! = 5,040 orders are enumerated, beyond that they are drawn
_NUMBERS_AT_ONCE = 2**22  # of pairs of buckets in memory: 32 MiB
# Values closer than this share of the largest are ties: mirrored buckets and constant rulers differ by rounding.
_TIE = 1e-9


def kendall(a: Array, b: Array) -> Array:
    """Kendall's τ_b (1945) between `a` [B] and each row of `b` [..., B], in [−1, 1]; 0 where either is constant."""
    first, second = np.triu_indices(a.shape[-1], 1)
    sign_a = _sign(a, first, second)
    sign_b = _sign(b, first, second)
    untied = np.sqrt(np.square(sign_a).sum(-1) * np.square(sign_b).sum(-1))
    agreement = (sign_a * sign_b).sum(-1)
    return np.divide(agreement, untied, out=np.zeros_like(agreement), where=untied > 0)


def told(tau: float) -> str:
    """A correlation for a sentence, always with its sign."""
    return f"{tau:+.2f}".replace("-", "−")


def _sign(values: Array, first: NDArray[np.intp], second: NDArray[np.intp]) -> Array:
    tolerance = _TIE * np.abs(values).max(-1, keepdims=True)
    difference = values[..., first] - values[..., second]
    return np.where(np.abs(difference) <= tolerance, 0.0, np.sign(difference))


def contrast(ruler: Array) -> Array:
    """Weights over buckets that compare the most recoverable third with the least recoverable third.

    Args:
        ruler: Recoverability of each bucket, [B], B ≥ 2.

    Returns:
        [B], summing to 0: the mean over the upper third minus the mean over the lower third. Thirds are rounded up, and
        buckets that tie with the border of a third are all taken in. All zero for a constant ruler.
    """
    count = len(ruler)
    size = math.ceil(count / 3)
    ordered = np.sort(ruler)
    margin = _TIE * np.abs(ruler).max()
    upper = ruler >= ordered[-size] - margin
    lower = ruler <= ordered[size - 1] + margin
    both = upper & lower
    upper, lower = upper & ~both, lower & ~both
    if not (upper.any() and lower.any()):
        return np.zeros(count)
    return upper / upper.sum() - lower / lower.sum()


def permutation_p_value(
    score: Callable[[Array], Array], values: Array, seed: int, draws: int = 9999
) -> float:
    """One-sided p-value of a score against permuted bucket labels.

    Up to `EXHAUSTIVE` buckets every order is tried and the p-value is exact, at least 1/B!. Beyond that `draws` random
    orders are, and one is added to numerator and denominator, which keeps the test valid (Phipson & Smyth 2010).

    Args:
        score: Maps values of the buckets [..., B] to scores [...]; large speaks for the claim.
        values: [B].
        seed: Of the random orders.
        draws: Number of random orders.

    Returns:
        Share of orders that score at least as high as the true one, in (0, 1].
    """
    orders = _orders(len(values), seed, draws)
    threshold = float(score(values)) - 1e-12  # equal scores may differ by rounding
    pieces = np.array_split(orders, -(-orders.size * len(values) // _NUMBERS_AT_ONCE))
    as_large = sum(int((score(values[some]) >= threshold).sum()) for some in pieces)
    exact = len(values) <= EXHAUSTIVE
    return as_large / len(orders) if exact else (as_large + 1) / (len(orders) + 1)


def _orders(count: int, seed: int, draws: int) -> NDArray[np.intp]:
    """All orders of few labels, else random ones: [S, count]."""
    if count <= EXHAUSTIVE:
        return np.array(list(itertools.permutations(range(count))))
    return np.argsort(np.random.default_rng(seed).random((draws, count)), axis=1)


@dataclass(frozen=True)
class PageTrend:
    """Page's test.

    Attributes:
        statistic: L = Σ_j j · (sum over seeds of the rank of the bucket with the j-th smallest ruler).
        p_value: One-sided, small where values rise with the ruler; exact for few seeds and buckets without ties.
    """

    statistic: float
    p_value: float


def page_trend(ruler: Array, values: Array) -> PageTrend:
    """Do the values rise with the ruler in every seed? Page's L (1963) on buckets paired within seeds.

    Only ranks within a seed count, so seeds may differ in level and scale. Buckets that tie in the ruler are averaged.

    Args:
        ruler: Recoverability of each bucket, [B], at least 3 different ones.
        values: [S, B], a row a seed, S ≥ 2.

    Returns:
        `PageTrend`.

    Raises:
        InputError: shapes that do not fit, too few seeds or buckets, values that are not finite.
    """
    if values.ndim != 2 or ruler.shape != values.shape[1:] or len(values) < 2:
        raise InputError(
            "values", expected=f"[S, {len(ruler)}] of at least 2 seeds", got=f"shape {values.shape}"
        )
    if not (np.isfinite(values).all() and np.isfinite(ruler).all()):
        raise InputError("values and ruler", expected="finite numbers", got="NaN or infinity")
    order = np.argsort(ruler, kind="stable")
    gaps = np.diff(ruler[order]) > _TIE * np.abs(ruler).max()
    levels = np.split(order, np.flatnonzero(gaps) + 1)
    if len(levels) < 3:
        raise InputError("ruler", expected="at least 3 different values", got=len(levels))
    found = page_trend_test(np.stack([values[:, level].mean(1) for level in levels], 1))
    return PageTrend(float(found.statistic), float(found.pvalue))


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests.

    Attributes:
        mean: Of the differences.
        p_above: Against a mean of −margin or less.
        p_below: Against a mean of +margin or more.
    """

    mean: float
    p_above: float
    p_below: float

    @property
    def p_value(self) -> float:
        """Of "not equivalent": the larger of the two; below α just where the 1 − 2α interval lies within the margins."""
        return max(self.p_above, self.p_below)


def equivalence(differences: Array, margin: float) -> Equivalence:
    """Is the mean of paired differences within ±margin? Two one-sided t tests (Schuirmann 1987).

    A difference that is not significant is not yet an absence; this is the test that can show one.

    Args:
        differences: One a pair (a seed, say), [S], S ≥ 2.
        margin: The largest mean that still counts as none, > 0, chosen before looking.

    Returns:
        `Equivalence`.

    Raises:
        InputError: fewer than two differences, one that is not finite, or a margin that is not positive.
    """
    if differences.ndim != 1 or len(differences) < 2 or not np.isfinite(differences).all():
        raise InputError("differences", expected="at least 2 finite numbers", got=differences.tolist())
    if not (math.isfinite(margin) and margin > 0):
        raise InputError("margin", expected="a positive number", got=margin)
    mean, freedom = float(differences.mean()), len(differences) - 1
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))

    def p_value(distance: float) -> float:
        """Of a mean that lies this far on the right side of its margin."""
        if error > 0:
            return float(student.sf(distance / error, freedom))
        return 0.5 - math.copysign(0.5, distance) if distance else 0.5

    return Equivalence(mean, p_value(mean + margin), p_value(margin - mean))


def holm(p_values: Sequence[float]) -> Array:
    """Holm's step-down adjustment (1979): family-wise error stays below the level. NaN entries are not tests."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - position) * p[index]))
        adjusted[index] = running
    return adjusted
