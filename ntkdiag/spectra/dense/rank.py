"""How many directions a kernel really has: the effective-rank family, on eigenvalues of K/N or on pairs.

Every function takes a stack and reduces the last axes, so that resampling can call it on thousands of
sub-Grams. Statistics of the eigenvalues grow with N: compare kernels at equal N only. The pair statistic
does not.

Conventions: e_1 ≥ e_2 ≥ … ; a zero matrix has every rank 0 and no shares or slopes (NaN). None of these
numbers changes when K is multiplied by a positive number.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array, real_array

# Matrix and per-probe Grams may come in float32; their means then differ by round-off.
_SAME_MEAN = 1e-5


def effective_rank(eigenvalues: Array) -> Array:
    """Entropy effective rank exp(−Σ p ln p), p = e/Σe.

    Roy & Vetterli (2007, "The effective rank") define it on singular values; here p is taken on eigenvalues,
    the squares of the features' singular values. Negative eigenvalues are clipped to zero for the entropy.

    Args:
        eigenvalues: [..., N].

    Returns:
        [...] in [1, N]; 0 for a zero matrix.
    """
    kept = np.clip(eigenvalues, 0, None)
    share = _divide(kept, kept.sum(-1, keepdims=True))
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(-1)
    return np.where(kept.sum(-1) > 0, np.exp(entropy), 0.0)[()]


def participation_ratio(eigenvalues: Array) -> Array:
    """(Σe)² / Σe², the Rényi-2 counterpart of `effective_rank`; `participation_ratio_pairs` has less bias.

    Args:
        eigenvalues: [..., N].

    Returns:
        [...] in [1, N] for a positive semi-definite matrix; 0 for a zero one.
    """
    scaled = _divide(eigenvalues, np.abs(eigenvalues).max(-1, keepdims=True))
    return _divide(np.square(scaled.sum(-1)), np.square(scaled).sum(-1))[()]


def stable_rank(eigenvalues: Array) -> Array:
    """Σe / e_1: the stable rank ‖J‖_F² / ‖J‖² of the features behind K = J Jᵀ (Rudelson & Vershynin 2007).

    Args:
        eigenvalues: [..., N], largest first.

    Returns:
        [...] in [1, N] for a positive semi-definite matrix; 0 where e_1 is not positive.
    """
    return _divide(eigenvalues.sum(-1), np.clip(eigenvalues[..., 0], 0, None))[()]


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
    if not 0 <= tol < 1:
        raise InputError("tol", expected="a number in [0, 1)", got=tol)
    largest = np.clip(eigenvalues[..., :1], 0, None)
    return ((eigenvalues > tol * largest) & (eigenvalues > 0)).sum(-1)


def top_k_energy(eigenvalues: Array, k: int = 8) -> Array:
    """Share of the trace in the k largest eigenvalues.

    Args:
        eigenvalues: [..., N], largest first.
        k: At least 1; beyond N the share is 1.

    Returns:
        [...] in (0, 1] for a positive semi-definite matrix (above 1 by no more than its negative eigenvalues
        allow); NaN for a zero one.
    """
    require_positive_int("k", k)
    total = eigenvalues.sum(-1)
    return _divide(eigenvalues[..., :k].sum(-1), total, otherwise=np.nan)[()]


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
    require_positive_int("first", first)
    require_positive_int("last", last, minimum=first + 1)
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


def participation_ratio_pairs(
    matrix: GramLike, stderr: GramLike | None = None, per_probe: GramLike | None = None
) -> float:
    """Participation ratio of the population from pairs of samples, (Σ_{i≠j} K_ii K_jj) / (Σ_{i≠j} K_ij²).

    Over independent x ≠ x', E K(x,x)K(x',x') = (tr T)² and E K(x,x')² = tr T² with T the kernel's integral
    operator, so numerator and denominator are unbiased for those of (tr T)²/tr T². (Their ratio is not, by a
    few per cent at N = 64; the bias of `participation_ratio` is of order PR/N.)

    Probe noise adds its variance to K_ij². It is removed by `stderr`, or by `per_probe`, which is exact for
    the numerator too.

    Args:
        matrix: K, [N, N].
        stderr: Standard error of each entry, [N, N]. The noise of diagonal products is left in.
        per_probe: Grams of R ≥ 2 independent probes, [R, N, N], of mean `matrix`: products are then taken
            between different probes only (a U-statistic over probe pairs r ≠ s).

    Returns:
        A positive number, larger than N by chance or for near-orthogonal samples; infinite where the pairs
        show no overlap beyond the noise; 0 for a zero matrix; NaN for one sample, or where the numerator is
        not positive.

    Raises:
        InputError: a bad matrix, `stderr` and `per_probe` together, or shapes and means that do not match.
    """
    return float(pair_ratio(pair_sums(pair_products(*checked_noise(matrix, stderr, per_probe)))))


def checked_noise(
    matrix: GramLike, stderr: GramLike | None, per_probe: GramLike | None
) -> tuple[Array, Array | None, Array | None]:
    """Check a Gram with what is known of its probe noise; float64 in the order given.

    Raises:
        InputError: see `participation_ratio_pairs`.
    """
    gram = gram_array(matrix)
    if stderr is not None and per_probe is not None:
        raise InputError("probe noise", expected="stderr or per_probe", got="both")
    if stderr is not None:
        errors = real_array(stderr, "stderr")
        if errors.shape != gram.shape or (errors < 0).any():
            raise InputError(
                "stderr", expected=f"non-negative numbers of shape {gram.shape}", got=f"shape {errors.shape}"
            )
        return gram, errors, None
    if per_probe is None:
        return gram, None, None
    probes = gram_array(per_probe, "per_probe", leading=("R",))
    if len(probes) < 2 or probes.shape[1:] != gram.shape:
        expected = f"at least 2 probes of shape {gram.shape}"
        raise InputError("per_probe", expected=expected, got=f"shape {probes.shape}")
    if np.abs(probes.mean(0) - gram).max() > _SAME_MEAN * np.abs(probes).max():
        raise InputError("per_probe", expected="Grams whose mean is the matrix", got="another mean")
    return gram, None, probes


def pair_products(grams: Array, stderr: Array | None = None, per_probe: Array | None = None) -> Array:
    """Unbiased estimates of K_ii K_jj and K_ij² for every pair, up to one common factor.

    A sub-Gram's products are the sub-matrix of the products, so they are formed once before resampling.

    Args:
        grams: [..., N, N].
        stderr: [..., N, N] or None.
        per_probe: [..., R, N, N] or None.

    Returns:
        [..., 2, N, N]: K_ii K_jj and K_ij², in units of max|K|² so that no scale overflows; diagonals zero.
    """
    unit = np.abs(grams).max((-1, -2), keepdims=True)
    unit = np.where(unit > 0, unit, 1.0)
    if per_probe is not None:
        probes = per_probe / unit[..., None, :, :]
        diagonal = np.diagonal(probes, axis1=-2, axis2=-1)
        count = probes.shape[-3]
        norm = count * (count - 1)
        total = diagonal.sum(-2)
        same_probe = diagonal.swapaxes(-1, -2) @ diagonal
        diagonals = (total[..., :, None] * total[..., None, :] - same_probe) / norm
        squares = (np.square(probes.sum(-3)) - np.square(probes).sum(-3)) / norm
    else:
        scaled = grams / unit
        diagonal = np.diagonal(scaled, axis1=-2, axis2=-1)
        diagonals = diagonal[..., :, None] * diagonal[..., None, :]
        squares = np.square(scaled)
        if stderr is not None:
            squares = squares - np.square(stderr / unit)
    return np.stack([diagonals, squares], -3) * (1.0 - np.eye(grams.shape[-1]))


def pair_sums(products: Array) -> Array:
    """Sums over all pairs, [..., 2, n, n] → [..., 2]; NaN where one sample leaves no pair."""
    sums = products.sum((-1, -2))
    return sums if products.shape[-1] > 1 else np.full_like(sums, np.nan)


def pair_ratio(sums: Array) -> Array:
    """Ratio of the two sums over pairs, [..., 2] → [...]; edges as `participation_ratio_pairs`."""
    diagonals, squares = sums[..., 0], sums[..., 1]
    ratio = _divide(diagonals, np.clip(squares, 0, None), otherwise=np.inf)
    ratio = np.where(diagonals > 0, ratio, np.nan)
    return np.where((diagonals == 0) & (squares == 0), 0.0, ratio)[()]


def _divide(top: Array, bottom: Array, otherwise: float = 0.0) -> Array:
    """top / bottom, and `otherwise` where bottom is zero."""
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.full(top.shape, otherwise), where=bottom != 0)
