"""Trends over buckets: rank correlation, permuted bucket labels, and correction for many tests.

A bucket is one observation here; intervals over samples are made elsewhere, from paired resampling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXHAUSTIVE = 7  # up to 7! = 5,040 orders are enumerated, beyond that they are drawn


def kendall(a: Array, b: Array) -> Array:
    """Kendall's τ_b between `a` [B] and each row of `b` [..., B]; 0 where either is constant.

    Values closer than 1e-9 of the range count as ties, so that symmetric buckets tie as they should.
    """
    first, second = np.triu_indices(a.shape[-1], 1)
    sign_a = _sign(a, first, second)
    sign_b = _sign(b, first, second)
    untied = np.sqrt(np.square(sign_a).sum(-1) * np.square(sign_b).sum(-1))
    agreement = (sign_a * sign_b).sum(-1)
    return np.divide(agreement, untied, out=np.zeros_like(agreement), where=untied > 0)


def _sign(values: Array, first: NDArray[np.intp], second: NDArray[np.intp]) -> Array:
    spread = np.ptp(values, axis=-1, keepdims=True)
    difference = values[..., first] - values[..., second]
    return np.where(np.abs(difference) <= 1e-9 * spread, 0.0, np.sign(difference))


def contrast(ruler: Array) -> Array:
    """Weights over buckets that compare the most recoverable third with the least recoverable third.

    Args:
        ruler: Recoverability of each bucket, [B], B ≥ 2.

    Returns:
        [B], summing to 0: the mean over the upper third minus the mean over the lower third. Buckets that tie with the
        border of a third are all taken in.
    """
    count = len(ruler)
    size = max(1, math.ceil(count / 3))
    ordered = np.sort(ruler)
    margin = 1e-9 * np.ptp(ruler)
    upper = ruler >= ordered[-size] - margin
    lower = ruler <= ordered[size - 1] + margin
    both = upper & lower
    upper, lower = upper & ~both, lower & ~both
    if not (upper.any() and lower.any()):
        return np.zeros(count)
    return upper / upper.sum() - lower / lower.sum()


def permutation_p_value(statistic: Array, observed: float, draws: int | None = None) -> float:
    """One-sided p-value, the share of permuted statistics at least as large as the observed one.

    Args:
        statistic: The statistic under permuted labels, [S].
        observed: The statistic with the true labels.
        draws: None when `statistic` holds every permutation (then the share is exact); otherwise one is added to
            numerator and denominator, which keeps a sampled test valid (Phipson & Smyth 2010).
    """
    as_large = int((statistic >= observed - 1e-12).sum())
    return as_large / len(statistic) if draws is None else (as_large + 1) / (draws + 1)


def permutations(count: int, seed: int, draws: int = 9999) -> tuple[NDArray[np.intp], int | None]:
    """Orders of bucket labels: all of them for few buckets, else `draws` random ones.

    Returns:
        [S, count] and the number drawn, None when the list is complete.
    """
    if count <= EXHAUSTIVE:
        return np.array(list(itertools.permutations(range(count)))), None
    generator = np.random.default_rng(seed)
    return np.argsort(generator.random((draws, count)), axis=1), draws


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
