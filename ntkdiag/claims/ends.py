"""The two ends of a network's log-SNR range: its noisy third and its clean third, each compared with the middle third."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array, GramLike, real_array

NOISY, CLEAN = "noisy", "clean"
ENDS = (NOISY, CLEAN)
MIN_BUCKETS = 3


def thirds(log_snr: GramLike) -> dict[str, NDArray[np.bool_]]:
    """Which buckets belong to the noisy, the middle and the clean third.

    Args:
        log_snr: Bucket centres, [B], B ≥ 3, all different.

    Returns:
        "noisy", "middle", "clean" → truth values, [B]. The ends have B/3 buckets each, rounded to the nearest whole number;
        the middle has the rest.

    Raises:
        InputError: fewer than 3 buckets, or two at one log-SNR.

    Example:
        >>> {name: int(part.sum()) for name, part in thirds(range(10)).items()}
        {'noisy': 3, 'middle': 4, 'clean': 3}
    """
    levels = real_array(np.asarray(log_snr, dtype=float), "log_snr")
    if levels.ndim != 1 or len(levels) < MIN_BUCKETS:
        raise InputError(
            "buckets",
            expected=f"at least {MIN_BUCKETS}, one for each third of the log-SNR range",
            got=len(levels) if levels.ndim == 1 else f"shape {list(levels.shape)}",
        )
    if len(np.unique(levels)) < len(levels):
        raise InputError("log_snr", expected="another value in each bucket", got="two equal values")
    place, size = levels.argsort().argsort(), round(len(levels) / 3)
    noisy, clean = place < size, place >= len(levels) - size
    return {NOISY: noisy, "middle": ~noisy & ~clean, CLEAN: clean}


def contrast(log_snr: GramLike, end: str) -> Array:
    """Weights over buckets, [B], of sum 0: the mean over the middle third minus the mean over an end."""
    parts = thirds(log_snr)
    middle, at_end = parts["middle"], parts[end]
    weights: Array = middle / middle.sum() - at_end / at_end.sum()
    return weights
