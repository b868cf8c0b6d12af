"""The formulas of the effective-rank family on stacks of eigenvalues, without checks: the inner loop of the jackknife.

Every function reduces the last axis of [..., n], finite float64, largest first. `rank` has the functions for users.
Eigenvalues are divided by their largest size before anything else, so that no scale over- or underflows.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.spectra.dense.eigen import Array


def effective_rank(eigenvalues: Array) -> Array:
    """exp(−Σ p ln p), p = e/Σe over the positive eigenvalues; 0 for a zero matrix."""
    kept = np.clip(_in_units_of_the_largest(eigenvalues), 0, None)
    share = divide(kept, kept.sum(-1, keepdims=True))
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(-1)
    return np.where(kept.sum(-1) > 0, np.exp(entropy), 0.0)[()]


def participation_ratio(eigenvalues: Array) -> Array:
    """(Σe)² / Σe²; 0 for a zero matrix."""
    scaled = _in_units_of_the_largest(eigenvalues)
    return divide(np.square(scaled.sum(-1)), np.square(scaled).sum(-1))[()]


def stable_rank(eigenvalues: Array) -> Array:
    """Σe / e_1; 0 where e_1 is not positive."""
    scaled = _in_units_of_the_largest(eigenvalues)
    return divide(scaled.sum(-1), np.clip(scaled[..., 0], 0, None))[()]


def numerical_rank(eigenvalues: Array, tol: float) -> Array:
    """#{e > tol · e_1, e > 0}, integers."""
    scaled = _in_units_of_the_largest(eigenvalues)
    largest = np.clip(scaled[..., :1], 0, None)
    ranks: Array = ((scaled > tol * largest) & (scaled > 0)).sum(-1)
    return ranks


def top_k_energy(eigenvalues: Array, k: int) -> Array:
    """Σ_{j ≤ k} e_j / Σe; NaN for a zero matrix."""
    scaled = _in_units_of_the_largest(eigenvalues)
    return divide(scaled[..., :k].sum(-1), scaled.sum(-1), otherwise=np.nan)[()]


def decay_exponent(eigenvalues: Array, first: int = 1, last: int = 8) -> Array:
    """Minus the least-squares slope of ln e_k against ln k, k = first … last; NaN where one lies below N ε e_1."""
    size = eigenvalues.shape[-1]
    if size < last:
        return np.full(eigenvalues.shape[:-1], np.nan)[()]
    scaled = _in_units_of_the_largest(eigenvalues)
    used = scaled[..., first - 1 : last]
    floor = size * np.finfo(np.float64).eps * np.clip(scaled[..., 0], 0, None)
    defined = used[..., -1] > floor
    position = np.log(np.arange(first, last + 1))
    position -= position.mean()
    slope = np.log(np.where(defined[..., None], used, 1.0)) @ position / np.square(position).sum()
    return np.where(defined, -slope + 0.0, np.nan)[()]


def divide(top: Array, bottom: Array, otherwise: float = 0.0) -> Array:
    """top / bottom, and `otherwise` where bottom is zero."""
    top, bottom = np.broadcast_arrays(top, bottom)
    quotient: Array = np.divide(top, bottom, out=np.full(top.shape, otherwise), where=bottom != 0)
    return quotient


def _in_units_of_the_largest(eigenvalues: Array) -> Array:
    return divide(eigenvalues, np.abs(eigenvalues).max(-1, keepdims=True))
