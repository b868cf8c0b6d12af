"""Gradient signal: whether per-sample gradients agree with one another, within a bucket and between buckets.

Everything is computed from the residual Gram G_ij = g_i · g_j, so that no gradient needs to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntkdiag.confidence import require_level
from ntkdiag.recoverability.bucket_signals import (
    MIN_SAMPLES,
    bucket_blocks,
    error_quantile,
    require_pairs,
    signals,
    signals_without,
)
from ntkdiag.spectra.dense.eigen import Array
from ntkdiag.spectra.dense.named_statistics import evaluate_all

CLEAR = 3.0  # standard errors; tuned in analysis/coverage, where fewer let too many cosines of noise through
WIDEST = 1.0  # half of the range of a cosine


@dataclass(frozen=True)
class GradientSignal:
    """Agreement of per-sample gradients g_i.

    Attributes:
        signal: Mean off-diagonal entry of G, unbiased for ‖E g‖²; negative by chance where there is none.
        total: Mean diagonal entry, unbiased for E‖g‖².
        ratio: signal / (total − signal), the gradient signal-to-noise ratio of one sample; NaN where all agree.

    Example:
        >>> gradients = np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> gradient_signal(gradients @ gradients.T)
        GradientSignal(signal=0.0, total=2.0, ratio=0.0)
    """

    signal: float
    total: float
    ratio: float


def gradient_signal(residual_gram: Array) -> GradientSignal:
    """Gradient signal-to-noise from the residual Gram of one bucket, [N, N].

    Raises:
        InputError: fewer than two samples.

    Example:
        >>> gradients = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0]])
        >>> found = gradient_signal(gradients @ gradients.T)
        >>> round(found.signal, 6), round(found.total, 6)
        (0.666667, 1.666667)
    """
    require_pairs(residual_gram.shape[0])
    found = evaluate_all(("gradient_signal", "trace", "gsnr"), residual_gram)
    return GradientSignal(float(found["gradient_signal"]), float(found["trace"]), float(found["gsnr"]))


@dataclass(frozen=True, eq=False)
class GradientCosines:
    """Cosines between the mean gradients of buckets, each [B, B], in [−1, 1]; NaN where the data do not say.

    Attributes:
        value: The estimate.
        low, high: Ends of its interval.

    Example:
        >>> gradients = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.0], [1.1, 0.0]] * 2)  # two buckets, the same four samples
        >>> found = gradient_cosines(gradients @ gradients.T, 2)
        >>> found.value.round(2).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """

    value: Array
    low: Array
    high: Array


def gradient_cosine(residual_gram: Array, buckets: int) -> Array:
    """The values of `gradient_cosines`, [B, B].

    Raises:
        InputError: as `gradient_cosines`.

    Example:
        >>> gradients = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.0], [1.1, 0.0]] * 2)
        >>> gradient_cosine(gradients @ gradients.T, 2).round(2).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    return gradient_cosines(residual_gram, buckets).value


def gradient_cosines(residual_gram: Array, buckets: int, level: float = 0.9) -> GradientCosines:
    """Cosine between the mean gradients of buckets, signal_ab / √(signal_aa signal_bb), with intervals.

    The draws are paired, so entries that share a sample (i = j) are left out of signal_ab as well: it stays the
    unbiased product of two independent means. The interval holds every c for which signal_ab − c √(signal_aa signal_bb)
    may be zero (Fieller 1954), with variances by the jackknife over samples, ends clipped to [−1, 1].

    No number is given where √(signal_aa signal_bb) is less than `CLEAR` of its standard errors, since a cosine with a
    mean gradient that may be zero says nothing, nor where the interval is wider than `WIDEST`, nor of fewer than 4 samples.

    Args:
        residual_gram: [B·N, B·N], bucket-major, N ≥ 2.
        buckets: B.
        level: Nominal coverage of the interval, in (0, 1).

    Raises:
        InputError: fewer than two samples a bucket, or rows that do not divide into buckets.

    Example:
        >>> one = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.0], [1.1, 0.0]])
        >>> gradients = np.concatenate([one, -one])  # a second bucket that pulls the other way
        >>> gradient_cosines(gradients @ gradients.T, 2).value.round(2).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """
    require_level(level)
    blocks = bucket_blocks(residual_gram, buckets)
    samples = blocks.shape[1]
    if samples < MIN_SAMPLES:
        unknown = np.full((buckets, buckets), np.nan)
        return GradientCosines(unknown, unknown, unknown)
    signal, without = signals(blocks), signals_without(blocks)
    norm, norm_without = _norms(signal[None])[0], _norms(without)
    ratio = np.divide(signal, norm, out=np.full_like(signal, np.nan), where=norm > 0)
    top, bottom = (
        (samples - 1) / samples * (parts.mean(0) - parts) for parts in (without, norm_without)
    )  # each sample's share of the error, [N, B, B]
    factor = samples / (samples - 1)
    variance, mixed, own = (factor * (a * b).sum(0) for a, b in ((top, top), (top, bottom), (bottom, bottom)))
    reach = error_quantile(top - np.nan_to_num(ratio) * bottom, level)
    # The ends solve (norm² − q² own) c² − 2 (signal norm − q² mixed) c + signal² − q² variance = 0.
    square = norm**2 - reach**2 * own
    half = signal * norm - reach**2 * mixed
    root = np.sqrt(np.clip(half**2 - square * (signal**2 - reach**2 * variance), 0, None))
    clear = (norm > 0) & (norm >= CLEAR * np.sqrt(own)) & (square > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (np.clip((half + sign * root) / square, -1, 1) for sign in (-1, 1))
    known = clear & (high - low <= WIDEST)
    value = np.clip(ratio, low, high)
    return GradientCosines(*(np.where(known, part, np.nan) for part in (value, low, high)))


def _norms(signals: Array) -> Array:
    """√(signal_aa signal_bb) of each [B, B] in a stack; 0 where a bucket's own signal is negative."""
    own = np.sqrt(np.clip(np.diagonal(signals, axis1=-2, axis2=-1), 0, None))
    norms: Array = own[..., :, None] * own[..., None, :]
    return norms
