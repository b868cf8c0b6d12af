"""How many directions a kernel really has: the effective-rank family, on eigenvalues of K/N.

Every function takes a stack and reduces the last axis, so that the jackknife can call it on hundreds of
sub-Grams. All of them grow with N: compare kernels at equal N only. (`pairs` has a statistic that does not.)

Conventions: e_1 ≥ e_2 ≥ … ; a zero matrix has every rank 0 and no shares or slopes (NaN). None of these
numbers changes when K is multiplied by a positive number.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.errors import InputError, require_int, require_number, require_positive_int
from ntkdiag.spectra.dense.eigen import Array, real_array


def effective_rank(eigenvalues: Array) -> Array:
    """Entropy effective rank exp(−Σ p ln p), p = e/Σe.

    Roy & Vetterli (2007, "The effective rank") define it on singular values; here p is taken on eigenvalues,
    the squares of the features' singular values. Negative eigenvalues are clipped to zero for the entropy.

    Args:
        eigenvalues: [..., N].

    Returns:
        [...] in [1, N]; 0 for a zero matrix.

    Example:
        >>> float(effective_rank(np.array([1.0, 1.0, 0.0])).round(6))
        2.0
    """
    eigenvalues = _checked(eigenvalues)
    kept = np.clip(eigenvalues, 0, None)
    share = divide(kept, kept.sum(-1, keepdims=True))
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(-1)
    return np.where(kept.sum(-1) > 0, np.exp(entropy), 0.0)[()]


def participation_ratio(eigenvalues: Array) -> Array:
    """(Σe)² / Σe², the Rényi-2 counterpart of `effective_rank`; `participation_ratio_pairs` has less bias.

    Args:
        eigenvalues: [..., N].

    Returns:
        [...] in [1, N] for a positive semi-definite matrix; 0 for a zero one.
    """
    eigenvalues = _checked(eigenvalues)
    scaled = divide(eigenvalues, np.abs(eigenvalues).max(-1, keepdims=True))
    return divide(np.square(scaled.sum(-1)), np.square(scaled).sum(-1))[()]


def stable_rank(eigenvalues: Array) -> Array:
    """Σe / e_1: the stable rank ‖J‖_F² / ‖J‖² of the features behind K = J Jᵀ (Rudelson & Vershynin 2007).

    Args:
        eigenvalues: [..., N], largest first.

    Returns:
        [...] in [1, N] for a positive semi-definite matrix; 0 where e_1 is not positive.
    """
    eigenvalues = _checked(eigenvalues)
    return divide(eigenvalues.sum(-1), np.clip(eigenvalues[..., 0], 0, None))[()]


def numerical_rank(eigenvalues: Array, tol: float = 1e-6) -> Array:
    """#{e > tol · e_1}.

    Args:
        eigenvalues: [..., N], largest first.
        tol: In [0, 1). Tuned here: the default lies above the round-off of float32 gradients, about 1e-7.

    Returns:
        [...] integers in [0, N].

    Raises:
        InputError: tol outside [0, 1).
    """
    eigenvalues = _checked(eigenvalues)
    require_number("tol", tol, at_least=0, below=1)
    largest = np.clip(eigenvalues[..., :1], 0, None)
    ranks: Array = ((eigenvalues > tol * largest) & (eigenvalues > 0)).sum(-1)
    return ranks


def top_k_energy(eigenvalues: Array, k: int = 8) -> Array:
    """Share of the trace in the k largest eigenvalues.

    Args:
        eigenvalues: [..., N], largest first.
        k: At least 1; beyond N the share is 1.

    Returns:
        [...] in (0, 1] for a positive semi-definite matrix (above 1 by no more than its negative eigenvalues
        allow); NaN for a zero one.
    """
    eigenvalues = _checked(eigenvalues)
    require_positive_int("k", k)
    total = eigenvalues.sum(-1)
    return divide(eigenvalues[..., :k].sum(-1), total, otherwise=np.nan)[()]


def decay_exponent(eigenvalues: Array, first: int = 1, last: int = 8) -> Array:
    """Exponent a of e_k ∝ k^−a: minus the least-squares slope of ln e_k against ln k, k = first … last.

    Args:
        eigenvalues: [..., N], largest first.
        first: First index of the fit, from 1.
        last: Last index, included. The answer depends on the range: state it wherever the exponent is shown.

    Returns:
        [...], 0 for a flat spectrum; NaN where fewer than `last` eigenvalues stand above round-off (N ε e_1).

    Raises:
        InputError: first < 1 or last ≤ first.
    """
    eigenvalues = _checked(eigenvalues)
    require_positive_int("first", first)
    require_int("last", last, at_least=first + 1)
    size = eigenvalues.shape[-1]
    if size < last:
        return np.full(eigenvalues.shape[:-1], np.nan)[()]
    used = eigenvalues[..., first - 1 : last]
    floor = size * np.finfo(np.float64).eps * np.clip(eigenvalues[..., 0], 0, None)
    defined = used[..., -1] > floor
    position = np.log(np.arange(first, last + 1))
    position -= position.mean()
    slope = np.log(np.where(defined[..., None], used, 1.0)) @ position / np.square(position).sum()
    return np.where(defined, -slope + 0.0, np.nan)[()]


def _checked(eigenvalues: Array) -> Array:
    values = real_array(eigenvalues, "eigenvalues")
    if values.ndim == 0 or values.shape[-1] == 0:
        raise InputError(
            "eigenvalues", expected="shape [..., N] with N ≥ 1", got=f"shape {list(values.shape)}"
        )
    return values


def divide(top: Array, bottom: Array, otherwise: float = 0.0) -> Array:
    """top / bottom, and `otherwise` where bottom is zero."""
    top, bottom = np.broadcast_arrays(top, bottom)
    quotient: Array = np.divide(top, bottom, out=np.full(top.shape, otherwise), where=bottom != 0)
    return quotient
