"""Gain: by how much a step on one noise level lowers the whole objective, for the gradient noise that it brings.

With ḡ_λ the mean gradient of the loss at a level, ḡ = Σ_λ p_λ ḡ_λ that of the objective, c_λ = ⟨ḡ_λ, ḡ⟩ and v_λ = E‖g‖²_λ of
single samples, a step along the gradient weighted by w lowers the objective by (Σ p w c) to first order, while its noise has
the energy Σ p w² v. Of all weights, w ∝ c/v has the largest (Σ p w c)² / Σ p w² v: Cauchy and Schwarz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntkdiag.confidence import require_level
from ntkdiag.errors import InputError
from ntkdiag.recoverability.bucket_signals import (
    MIN_SAMPLES,
    bucket_blocks,
    error_quantile,
    signals,
    signals_without,
)
from ntkdiag.spectra.dense.eigen import Array


@dataclass(frozen=True, eq=False)
class GradientGain:
    """Gain of every bucket; each [B].

    Attributes:
        value: alignment / energy, to which the best weights are proportional; negative where a step on the bucket raises the
            objective, or seems to by chance; NaN where all gradients are zero.
        low, high: Ends of its interval; NaN for fewer than 4 samples.
        alignment: ⟨ḡ_b, ḡ⟩, unbiased.
        energy: E‖g_b‖² of one sample, unbiased.

    Example:
        >>> gradients = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.0], [1.1, 0.0]] * 2)
        >>> found = gradient_gain(gradients @ gradients.T, [0.5, 0.5])
        >>> bool(np.allclose(found.value, found.alignment / found.energy))
        True
    """

    value: Array
    low: Array
    high: Array
    alignment: Array
    energy: Array


def gradient_gain(residual_gram: Array, mass: Sequence[float] | Array, level: float = 0.9) -> GradientGain:
    """Gain of every bucket from one residual Gram of all buckets.

    The alignment takes entries of different samples only, since the draws are paired, and rests on B times as many of them
    as the signal of one bucket does. The ratio of the two unbiased numbers has a bias of 1/N to first order,
    gain · (Var v/v² − Cov(c, v)/(c v)), which is of the size of the squared standard error of v relative to v.

    Args:
        residual_gram: [B·N, B·N], bucket-major, N ≥ 2.
        mass: How often the objective draws from each bucket, [B], ≥ 0; need not sum to 1. Its loss is that which the Gram's
            residuals belong to: the network's own target, unweighted.
        level: Nominal coverage of the intervals, in (0, 1): the delta method with the jackknife over samples.

    Returns:
        The gains. A positive factor on all gradients changes none of them.

    Raises:
        InputError: fewer than two samples a bucket, rows that do not divide into buckets, or masses that are negative, not
            finite or all zero.

    Example:
        >>> import numpy as np
        >>> gradients = np.array([[1.0, 0.5], [1.0, -0.5], [2.0, 1.0], [2.0, -1.0]])  # two buckets of two samples
        >>> gradient_gain(gradients @ gradients.T, [0.5, 0.5]).alignment  # off-diagonal means 0.75, 1.5 and 3, halved
        array([1.125, 2.25 ])
    """
    require_level(level)
    share = _checked(mass)
    blocks = bucket_blocks(residual_gram, len(share))
    samples = blocks.shape[1]
    energies = np.einsum("aiai->ia", blocks)  # [N, B]
    alignment, energy = signals(blocks) @ share, energies.mean(0)
    value = _ratio(alignment, energy)
    if samples < MIN_SAMPLES:
        unknown = np.full_like(value, np.nan)
        return GradientGain(value, unknown, unknown, alignment, energy)
    without = _ratio(signals_without(blocks) @ share, (samples * energy - energies) / (samples - 1))
    # Each sample's share of the error, [N, B].
    shares = (samples - 1) / samples * (without.mean(0) - without)
    error = np.sqrt(samples / (samples - 1) * np.square(shares).sum(0))
    reach = error_quantile(shares, level) * error
    return GradientGain(value, value - reach, value + reach, alignment, energy)


def _checked(mass: Sequence[float] | Array) -> Array:
    """The masses with sum 1."""
    share = np.asarray(mass, float)
    if share.ndim != 1 or not np.isfinite(share).all() or (share < 0).any() or not share.sum() > 0:
        raise InputError(
            "mass of the buckets",
            expected="numbers ≥ 0, not all 0",
            got=share.tolist(),
            fix="Take buckets at noise levels that the schedule trains.",
        )
    whole: Array = share / share.sum()
    return whole


def _ratio(top: Array, bottom: Array) -> Array:
    found: Array = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
    return found
