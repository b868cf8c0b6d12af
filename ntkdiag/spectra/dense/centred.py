"""The kernel without its shared answer: K_c = H K H, H = I − 11ᵀ/n, and the share that all samples have in common.

If the gradients of all samples are nearly one vector, a step moves all outputs together, and samples cannot be told apart:
the shared share is then near 1, and the spectrum of K_c says what is left to tell them apart.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array


def centred(grams: Array) -> Array:
    """H K H / (1 − 1/n), so that the mean of the diagonal is unbiased for E k(x, x) − E k(x, x').

    Args:
        grams: [..., n, n], symmetric, n ≥ 2.

    Returns:
        [..., n, n]; exactly zero where nothing is left but rounding.

    Raises:
        InputError: one sample, of which nothing is left.
    """
    size = grams.shape[-1]
    if size < 2:
        raise InputError("centred kernel", expected="at least 2 samples", got=size)
    left = _plain_centred(grams)
    rounding = size * np.finfo(np.float64).eps * np.abs(grams).max((-1, -2), keepdims=True)
    nothing = np.abs(left).max((-1, -2), keepdims=True) <= rounding
    kept: Array = np.where(nothing, 0.0, left * (size / (size - 1)))
    return kept


def shared_share(grams: Array) -> Array:
    """1ᵀK1/(n tr K): the share of the trace by which all samples move together.

    Args:
        grams: [..., n, n].

    Returns:
        [...], 1 for K ∝ 11ᵀ, 1/n for a diagonal K of equal entries; NaN for a zero matrix.
    """
    total = grams.sum((-1, -2))
    diagonal = np.diagonal(grams, axis1=-2, axis2=-1).sum(-1) * grams.shape[-1]
    share: Array = np.divide(total, diagonal, out=np.full_like(total, np.nan), where=diagonal > 0)[()]
    return share


def centred_pair_sums(grams: Array, per_probe: Array | None = None, members: Array | None = None) -> Array:
    """(tr T_c)² and tr T_c² of the population's centred kernel, without bias, for some subsets of the samples.

    T_c is the integral operator of k(x, x') − E k(x, ·) − E k(·, x') + E k. Over distinct samples, tr T_c is the mean of
    d_ij = (K_ii + K_jj − 2 K_ij)/2, so (tr T_c)² is the mean of d_ij d_kl, and tr T_c² is the mean of
    K_ij² − 2 K_ij K_ik + K_ij K_kl, as in the unbiased HSIC (Song et al. 2012). Both are quadratic in K: probe noise is
    removed by products of different probes only.

    Args:
        grams: [..., N, N].
        per_probe: [..., R, N, N] of R ≥ 2 independent probes, of mean `grams`, or None.
        members: 1 for the samples of each subset and 0 for the others, [S, N]; None for one subset of all samples.

    Returns:
        [..., 2], or [..., S, 2] with `members`: both in one unit, that of max|K|² of the centred matrix; NaN for subsets of
        fewer than 4 samples.
    """
    one_subset = members is None
    chosen = np.ones((1, grams.shape[-1])) if members is None else members
    base = _plain_centred(grams)  # changes neither mean, and keeps a large shared part from cancelling
    unit = np.abs(base).max((-1, -2), keepdims=True)
    unit = np.where(unit > 0, unit, 1.0)
    if per_probe is None:
        sums = _both(base / unit, chosen)
    else:
        probes = _plain_centred(per_probe) / unit[..., None, :, :]
        count = probes.shape[-3]
        each = _both(probes, chosen).sum(-3)
        sums = (_both(probes.sum(-3), chosen) - each) / (count * (count - 1))
    found: Array = sums[..., 0, :] if one_subset else sums
    return found


def _plain_centred(grams: Array) -> Array:
    """H K H."""
    means = grams.mean(-1, keepdims=True)
    left: Array = grams - means - means.swapaxes(-1, -2) + means.mean(-2, keepdims=True)
    return left


def _both(grams: Array, members: Array) -> Array:
    """Both means of [..., N, N] over distinct samples of each subset, [..., S, 2]."""
    diagonal = np.diagonal(grams, axis1=-2, axis2=-1)
    distances = (diagonal[..., :, None] + diagonal[..., None, :]) / 2 - grams
    off_diagonal = grams * (1.0 - np.eye(grams.shape[-1]))
    size = members.sum(-1)
    pairs = np.where(size > 3, size * (size - 1), np.nan)
    triples, quadruples = pairs * (size - 2), pairs * (size - 2) * (size - 3)
    _, _, apart = _over_distinct(distances, members)
    square, chain, disjoint = _over_distinct(off_diagonal, members)
    return np.stack([apart / quadruples, square / pairs - 2 * chain / triples + disjoint / quadruples], -1)


def _over_distinct(matrix: Array, members: Array) -> tuple[Array, Array, Array]:
    """Σ m_ij², Σ m_ij m_ik and Σ m_ij m_kl over distinct indices of each subset; the diagonal of m is zero."""
    square = ((np.square(matrix) @ members.T) * members.T).sum(-2)
    rows = (matrix @ members.T) * members.T
    by_sample = np.square(rows).sum(-2)
    return square, by_sample - square, np.square(rows.sum(-2)) - 4 * by_sample + 2 * square
