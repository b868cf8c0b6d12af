"""The participation ratio of the population from pairs of samples: a rank that does not grow with N.

Probe noise is removed with the standard error of the entries, or exactly with the kernels of single probes.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array, real_array
from ntkdiag.spectra.dense.rank_formulas import divide

# Matrix and per-probe Grams may come in float32; their means then differ by round-off.
_SAME_MEAN = 1e-5


def participation_ratio_pairs(
    matrix: GramLike, stderr: GramLike | None = None, per_probe: GramLike | None = None
) -> float:
    """Participation ratio of the population from pairs of samples, (Σ_{i≠j} K_ii K_jj) / (Σ_{i≠j} K_ij²).

    Over independent x ≠ x', E K(x,x)K(x',x') = (tr T)² and E K(x,x')² = tr T² with T the kernel's integral
    operator, so numerator and denominator are unbiased for those of (tr T)²/tr T². (Their ratio has a bias of
    a few per cent at N = 64; the bias of `participation_ratio` is of order PR/N.)

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

    Example:
        >>> features = np.random.default_rng(0).normal(size=(400, 10))
        >>> 9 < nd.spectra.participation_ratio_pairs(features @ features.T) < 11  # ten directions of equal strength
        True
    """
    return float(pair_ratio(pair_sums(pair_products(*checked_noise(matrix, stderr, per_probe)))))


def checked_noise(
    matrix: GramLike, stderr: GramLike | None, per_probe: GramLike | None
) -> tuple[Array, Array | None, Array | None]:
    """Check a Gram and what is known of its probe noise; all three as float64, in the order of the arguments.

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

    A sub-Gram's products are the sub-matrix of the products, so they are formed once for all.

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
    ratio = divide(diagonals, np.clip(squares, 0, None), otherwise=np.inf)
    ratio = np.where(diagonals > 0, ratio, np.nan)
    return np.where((diagonals == 0) & (squares == 0), 0.0, ratio)[()]
