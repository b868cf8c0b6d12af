"""Contamination: the share of gradient energy that is Bayes noise, which no training removes.

With the optimal answer E[y|x] known, the residual splits into r = (f − E[y|x]) + (E[y|x] − y); only the first part can be
learned, but the gradient carries both.
"""

from __future__ import annotations

import math

import numpy as np

from ntkdiag.confidence import Interval, from_influence
from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array


def contamination(noise_energy: Array, residual_energy: Array, level: float = 0.9) -> Interval:
    """E‖Jᵀ(E[y|x] − y)‖² / E‖Jᵀ r‖², with an interval over samples.

    Args:
        noise_energy: ‖J_iᵀ(E[y|x_i] − y_i)‖² of each sample, [N].
        residual_energy: ‖J_iᵀ r_i‖² of the same samples, [N].
        level: Nominal coverage.

    Returns:
        The ratio of means; it exceeds 1 where noise and learnable parts partly cancel. The interval is symmetric in the
        logarithm (delta method over pairs, Student's t); NaN ends for fewer than 4 samples, all NaN without gradients.

    Raises:
        InputError: energies that are not pairs.

    Example:
        >>> noise, residual = np.array([1.0, 2.0, 1.0, 2.0]), np.array([4.0, 8.0, 4.0, 8.0])
        >>> contamination(noise, residual).value
        0.25
    """
    noise, residual = np.asarray(noise_energy, float), np.asarray(residual_energy, float)
    if noise.shape != residual.shape or noise.ndim != 1 or len(noise) == 0:
        raise InputError(
            "energies", expected="two of the same shape [N]", got=f"{noise.shape} and {residual.shape}"
        )
    method = f"ratio of means of {len(noise)} pairs, log"
    if not residual.mean() > 0:
        return Interval(math.nan, math.nan, math.nan, math.nan, level, method)
    value = float(noise.mean() / residual.mean())
    if len(noise) < 4 or not value > 0:
        return Interval(value, math.nan, math.nan, math.nan, level, method)
    influence = noise / noise.mean() - residual / residual.mean()
    return from_influence(value, influence, level, method)
