"""Learnability: how much of a signal lies where the kernel is strong, and how fast gradient flow removes a residual.

Both read the eigenpairs of K/N. With the trace kernel the same eigenvectors over samples serve every output
dimension (the full kernel is taken as K ⊗ I).
"""

from __future__ import annotations

import math

import numpy as np

from ntkdiag.errors import require_number
from ntkdiag.spectra.dense.eigen import Array

# Eigenvalues below this share of the largest are rounding errors of a float32 network.
RESOLUTION = 1e-6


def learnability(eigenvalues: Array, vectors: Array, signal: Array, kappa: float) -> float:
    """Share of a signal's energy in the kernel's strong directions, L(κ) = Σ_k e_k/(e_k + κ) ‖u_kᵀ y‖² / ‖y‖².

    It is y·ŷ/‖y‖² for the fit ŷ = K(K + κ)⁻¹y of kernel ridge regression; e/(e + κ) is what Simon et al. 2023
    ("The eigenlearning framework", arXiv 2110.03922) call the learnability of a mode.

    Args:
        eigenvalues: e_k of K/N, [N]; negative ones count as zero.
        vectors: u_k in columns, [N, N].
        signal: y, [N, D]: targets, or residuals.
        kappa: κ > 0 in units of the eigenvalues; use one κ for all buckets that are to be compared.

    Returns:
        L in [0, 1]; NaN for a zero signal.

    Raises:
        InputError: κ is not a positive number.

    Example:
        >>> learnability(np.array([1.0, 0.0]), np.eye(2), np.array([[1.0], [1.0]]), kappa=1.0)
        0.25
    """
    require_number("kappa", kappa, above=0)
    kept = np.clip(eigenvalues, 0, None)
    return float((kept / (kept + kappa) * _shares(vectors, signal)).sum())


def contraction(eigenvalues: Array, share: Array, time: float) -> float:
    """Share of a residual's energy that is left after gradient flow for a time τ, C(τ) = Σ_k p_k e^{−2τ e_k}.

    Args:
        eigenvalues: e_k, [N].
        share: p_k, share of the energy along each eigenvector, [N], of sum 1.
        time: τ ≥ 0 in units of 1/e.

    Returns:
        C in [0, 1] for e_k ≥ 0.

    Example:
        >>> contraction(np.array([1.0, 0.0]), np.array([0.5, 0.5]), time=50.0)  # half has no eigenvalue
        0.5
    """
    return float((share * np.exp(-2 * time * eigenvalues)).sum())


def median_half_life(eigenvalues: Array, vectors: Array, residual: Array) -> float:
    """Gradient-flow time τ until half of the residual's energy is gone, C(τ) = ½; see `contraction`.

    Args:
        eigenvalues: e_k of K/N, [N].
        vectors: u_k in columns, [N, N].
        residual: r, [N, D].

    Returns:
        τ in units of 1/e; infinite when half of the energy lies where the kernel has no eigenvalue above
        `RESOLUTION` of its largest; NaN for a zero residual.

    Example:
        >>> time = median_half_life(np.array([1.0, 1.0]), np.eye(2), np.array([[1.0], [2.0]]))
        >>> round(time, 4)  # ln 2 / 2
        0.3466
    """
    share = _shares(vectors, residual)
    if np.isnan(share).any():
        return math.nan
    fastest = float(eigenvalues.max(initial=0.0))
    rates = np.where(eigenvalues > RESOLUTION * fastest, eigenvalues, 0.0)
    if share[rates == 0].sum() >= 0.5:
        return math.inf
    low, high = 0.0, 1.0 / fastest
    while contraction(rates, share, high) > 0.5:
        low, high = high, 2 * high
    for _ in range(60):  # to the resolution of float64
        middle = (low + high) / 2
        low, high = (middle, high) if contraction(rates, share, middle) > 0.5 else (low, middle)
    return high


def _shares(vectors: Array, signal: Array) -> Array:
    """Share of a signal's energy along each eigenvector, [N], of sum 1; NaN for a zero signal."""
    power = np.square(vectors.T @ signal).sum(1)
    total = power.sum()
    shares: Array = np.divide(power, total, out=np.full_like(power, np.nan), where=total > 0)
    return shares
