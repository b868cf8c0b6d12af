"""How many directions a kernel really has: the effective-rank family, of a matrix, its eigenvalues, a Spectrum or a Gram.

All of them grow with N: compare kernels at equal N only. (`pairs` has a statistic that does not.) A zero matrix has every
rank 0 and no shares or slopes (NaN). None of these numbers changes when K is multiplied by a positive number. The formulas
are those of `rank_formulas`.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ntkdiag.errors import InputError, require_int, require_number, require_positive_int
from ntkdiag.kernel.gram import Gram
from ntkdiag.spectra.dense import rank_formulas
from ntkdiag.spectra.dense.eigen import Array, GramLike, Spectrum, eigenvalues, real_array

# What has a rank: a symmetric matrix [N, N], its eigenvalues [N] in any order, a `Spectrum`, or a `Gram`.
HasSpectrum: TypeAlias = "GramLike | Spectrum | Gram"


def effective_rank(kernel: HasSpectrum) -> float:
    """Entropy effective rank exp(−Σ p ln p), p = e/Σe.

    Roy & Vetterli (2007, "The effective rank") define it on singular values; here p is taken on eigenvalues,
    the squares of the features' singular values. Negative eigenvalues are clipped to zero for the entropy.

    Args:
        kernel: A symmetric matrix [N, N], its eigenvalues [N] in any order, a `Spectrum`, or a `Gram`.

    Returns:
        In [1, N]; 0 for a zero matrix.

    Raises:
        InputError: anything else, such as an asymmetric matrix or several kernels at once.

    Example:
        >>> effective_rank(np.diag([1.0, 1.0, 0.0])), effective_rank([1.0, 1.0, 0.0])
        (2.0, 2.0)
    """
    return float(rank_formulas.effective_rank(descending_eigenvalues(kernel)))


def participation_ratio(kernel: HasSpectrum) -> float:
    """(Σe)² / Σe², the Rényi-2 counterpart of `effective_rank`; `participation_ratio_pairs` has less bias.

    Args:
        kernel: As of `effective_rank`.

    Returns:
        In [1, N] for a positive semi-definite matrix; 0 for a zero one.

    Raises:
        InputError: as `effective_rank`.

    Example:
        >>> round(nd.spectra.participation_ratio(np.diag([2.0, 1.0, 1.0])), 6)  # 4² / 6
        2.666667
    """
    return float(rank_formulas.participation_ratio(descending_eigenvalues(kernel)))


def stable_rank(kernel: HasSpectrum) -> float:
    """Σe / e_1: the stable rank ‖J‖_F² / ‖J‖² of the features behind K = J Jᵀ (Rudelson & Vershynin 2007).

    Args:
        kernel: As of `effective_rank`.

    Returns:
        In [1, N] for a positive semi-definite matrix; 0 where e_1 is not positive.

    Raises:
        InputError: as `effective_rank`.

    Example:
        >>> nd.spectra.stable_rank(np.diag([2.0, 1.0, 1.0]))
        2.0
    """
    return float(rank_formulas.stable_rank(descending_eigenvalues(kernel)))


def numerical_rank(kernel: HasSpectrum, tol: float = 1e-6) -> int:
    """#{e > tol · e_1}.

    Args:
        kernel: As of `effective_rank`.
        tol: In [0, 1). Tuned here: the default lies above the round-off of float32 gradients, about 1e-7.

    Returns:
        In [0, N].

    Raises:
        InputError: tol outside [0, 1), or as `effective_rank`.

    Example:
        >>> nd.spectra.numerical_rank(np.diag([1.0, 1e-3, 1e-9, 0.0]))
        2
    """
    require_number("tol", tol, at_least=0, below=1)
    return int(rank_formulas.numerical_rank(descending_eigenvalues(kernel), tol))


def top_k_energy(kernel: HasSpectrum, k: int = 8) -> float:
    """Share of the trace in the k largest eigenvalues.

    Args:
        kernel: As of `effective_rank`.
        k: At least 1; beyond N the share is 1.

    Returns:
        In (0, 1] for a positive semi-definite matrix (above 1 by no more than its negative eigenvalues allow); NaN for a
        zero one.

    Raises:
        InputError: k < 1, or as `effective_rank`.

    Example:
        >>> nd.spectra.top_k_energy(np.diag([5.0, 3.0, 1.0, 1.0]), k=2)
        0.8
    """
    require_positive_int("k", k)
    return float(rank_formulas.top_k_energy(descending_eigenvalues(kernel), k))


def decay_exponent(kernel: HasSpectrum, first: int = 1, last: int = 8) -> float:
    """Exponent a of e_k ∝ k^−a: minus the least-squares slope of ln e_k against ln k, k = first … last.

    Args:
        kernel: As of `effective_rank`.
        first: First index of the fit, from 1.
        last: Last index, included. The answer depends on the range: state it wherever the exponent is shown.

    Returns:
        0 for a flat spectrum; NaN where fewer than `last` eigenvalues stand above round-off (N ε e_1).

    Raises:
        InputError: first < 1 or last ≤ first, or as `effective_rank`.

    Example:
        >>> round(nd.spectra.decay_exponent(np.diag(np.arange(1.0, 21) ** -1.5)), 6)
        1.5
    """
    require_positive_int("first", first)
    require_int("last", last, at_least=first + 1)
    return float(rank_formulas.decay_exponent(descending_eigenvalues(kernel), first, last))


def descending_eigenvalues(kernel: HasSpectrum) -> Array:
    """The eigenvalues [N] of whatever has a spectrum, largest first.

    Raises:
        InputError: see `effective_rank`.
    """
    if isinstance(kernel, Spectrum):
        kernel = kernel.values
    if isinstance(kernel, Gram):
        return eigenvalues(kernel).values
    array = real_array(kernel, "eigenvalues")
    if array.ndim == 1 and array.size:
        return np.sort(array)[::-1].copy()
    if array.ndim == 2 and array.shape[0] == array.shape[1] and array.size:
        return eigenvalues(array).values
    raise InputError(
        "eigenvalues",
        expected="a symmetric matrix [N, N], its eigenvalues [N], a Spectrum or a Gram, with N ≥ 1",
        got=f"shape {list(array.shape)}",
        fix="Of several kernels, pass one at a time; of features J [N, P], pass J @ J.T."
        if array.size
        else None,
    )
