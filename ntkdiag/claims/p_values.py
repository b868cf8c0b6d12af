"""p-values of claims: rank correlation over buckets, permuted bucket labels, Holm's correction for several claims.

A bucket is one observation here; intervals over samples come from a paired jackknife (`ntkdiag.spectra`). scipy has no
Kendall's τ for thousands of permutations at once, nor Holm's correction.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ntkdiag.spectra.dense.eigen import Array

EXHAUSTIVE = 7  # up to 7! = 5,040 orders are enumerated, beyond that they are drawn
_NUMBERS_AT_ONCE = 2**22  # of pairs of buckets in memory: 32 MiB
# Values closer than this share of the largest are ties: those of mirrored buckets may differ by rounding.
TIE = 1e-9


def kendall(a: Array, b: Array) -> Array:
    """Kendall's τ_b (1945) between `a` [B] and each row of `b` [..., B], in [−1, 1]; 0 where either is constant."""
    first, second = np.triu_indices(a.shape[-1], 1)
    sign_a = _sign(a, first, second)
    sign_b = _sign(b, first, second)
    untied = np.sqrt(np.square(sign_a).sum(-1) * np.square(sign_b).sum(-1))
    agreement = (sign_a * sign_b).sum(-1)
    statistic: Array = np.divide(agreement, untied, out=np.zeros_like(agreement), where=untied > 0)
    return statistic


def _sign(values: Array, first: NDArray[np.intp], second: NDArray[np.intp]) -> Array:
    tolerance = TIE * np.abs(values).max(-1, keepdims=True)
    difference = values[..., first] - values[..., second]
    return np.where(np.abs(difference) <= tolerance, 0.0, np.sign(difference))


def permutation_p_value(
    score: Callable[[Array], Array], values: Array, seed: int, draws: int = 9999
) -> float:
    """One-sided p-value of a score against permuted bucket labels.

    Up to `EXHAUSTIVE` buckets every order is tried and the p-value is exact, at least 1/B!. With more buckets `draws` random
    orders are tried, and one is added to numerator and denominator, which keeps the test valid (Phipson & Smyth 2010).

    Args:
        score: Maps values of the buckets [..., B] to scores [...]; large speaks for the claim.
        values: One number a bucket, [B].
        seed: Seed of the random orders.
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
