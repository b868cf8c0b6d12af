"""Gradient signal: whether per-sample gradients agree with one another, within a bucket and between buckets.

Everything is computed from the residual Gram G_ij = g_i · g_j, so that no gradient needs to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array
from ntkdiag.spectra.dense.named_statistics import evaluate_all


@dataclass(frozen=True)
class GradientSignal:
    """Agreement of per-sample gradients g_i.

    Attributes:
        signal: Mean off-diagonal entry of G, unbiased for ‖E g‖²; negative by chance where there is none.
        total: Mean diagonal entry, unbiased for E‖g‖².
        ratio: signal / (total − signal), the gradient signal-to-noise ratio of one sample; NaN where all agree.
    """

    signal: float
    total: float
    ratio: float


def gradient_signal(residual_gram: Array) -> GradientSignal:
    """Gradient signal-to-noise from the residual Gram of one bucket, [N, N].

    Raises:
        InputError: fewer than two samples.
    """
    _require_pairs(residual_gram.shape[0])
    found = evaluate_all(("gradient_signal", "trace", "gsnr"), residual_gram)
    return GradientSignal(float(found["gradient_signal"]), float(found["trace"]), float(found["gsnr"]))


def gradient_cosine(residual_gram: Array, buckets: int) -> Array:
    """Cosine between the mean gradients of buckets: signal_ab / √(signal_aa signal_bb).

    The draws are paired, so entries that share a sample (i = j) are left out of signal_ab as well: it stays the
    unbiased product of two independent means.

    Args:
        residual_gram: [B·N, B·N], bucket-major.
        buckets: B.

    Returns:
        [B, B]; NaN where a bucket's own signal is not positive. Estimates may exceed 1 in size; they are not clipped.

    Raises:
        InputError: fewer than two samples a bucket, or rows that do not divide into buckets.
    """
    rows = residual_gram.shape[0]
    if rows % buckets:
        raise InputError("residual Gram", expected=f"rows for {buckets} buckets", got=f"{rows} rows")
    samples = rows // buckets
    _require_pairs(samples)
    blocks = residual_gram.reshape(buckets, samples, buckets, samples)
    same = np.einsum("aibi->ab", blocks)
    signal = (blocks.sum((1, 3)) - same) / (samples * (samples - 1))
    own = np.where(np.diag(signal) > 0, np.diag(signal), np.nan)
    cosines: Array = signal / np.sqrt(np.outer(own, own))
    return cosines


def _require_pairs(samples: int) -> None:
    if samples < 2:
        raise InputError("samples", expected="at least 2 for a gradient signal", got=samples)
