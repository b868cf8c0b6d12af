"""Signals between buckets: inner products of the buckets' mean gradients, from the residual Gram of paired draws.

All buckets share their samples, so an entry of two buckets with the same sample on both sides holds the noise that they
share. Such entries are left out, and every signal is the unbiased product of two independent means.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.confidence import freedom, quantile
from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array
from ntkdiag.spectra.dense.named_statistics import TAIL_FACTOR

MIN_SAMPLES = 4  # below this no interval can be formed


def bucket_blocks(residual_gram: Array, buckets: int) -> Array:
    """The Gram [B·N, B·N], bucket-major, as [B, N, B, N].

    Raises:
        InputError: fewer than two samples a bucket, or rows that do not divide into buckets.
    """
    rows = residual_gram.shape[0]
    if rows % buckets:
        raise InputError("residual Gram", expected=f"rows for {buckets} buckets", got=f"{rows} rows")
    samples = rows // buckets
    require_pairs(samples)
    return residual_gram.reshape(buckets, samples, buckets, samples)


def require_pairs(samples: int) -> None:
    """Refuse fewer than two samples.

    Raises:
        InputError: that is so.
    """
    if samples < 2:
        raise InputError("samples", expected="at least 2 for a gradient signal", got=samples)


def signals(blocks: Array) -> Array:
    """signal_ab of [B, N, B, N], N at least 2: mean of the entries of two different samples, [B, B]."""
    samples = blocks.shape[1]
    same: Array = np.einsum("aibi->ab", blocks)
    found: Array = (blocks.sum((1, 3)) - same) / (samples * (samples - 1))
    return found


def signals_without(blocks: Array) -> Array:
    """`signals` without each sample in turn, N at least 3, [N, B, B]."""
    samples = blocks.shape[1]
    same = np.einsum("aibi->iab", blocks)
    # Rows and columns of each sample.
    touched = blocks.sum(3).transpose(1, 0, 2) + blocks.sum(1).transpose(2, 0, 1)
    rest = blocks.sum((1, 3)) - touched + same - (same.sum(0) - same)
    found: Array = rest / ((samples - 1) * (samples - 2))
    return found


def error_quantile(shares: Array, level: float) -> Array:
    """How many standard errors an interval reaches, from the samples' shares of the error, [N, ...] → [...].

    Student's t, with the degrees of freedom that the tails of the shares leave.
    """
    samples, energy = len(shares), np.square(shares).sum(0)
    kurtosis = np.divide(
        samples * (shares**4).sum(0), energy**2, out=np.full_like(energy, 3.0), where=energy > 0
    )
    excess = TAIL_FACTOR * np.clip(kurtosis - 3, 0, None)
    reach: Array = np.vectorize(lambda one: quantile(level, freedom(samples, one)))(excess)
    return reach
