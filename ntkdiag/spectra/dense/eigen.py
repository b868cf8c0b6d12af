"""Eigenvalues of a Gram matrix, in the one normalisation used everywhere: those of K/N, largest first.

A kernel is positive semi-definite, so negative eigenvalues are estimation noise or round-off. They are kept,
and their share is reported as `negative_mass`, never hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ntkdiag.errors import InputError, first_line
from ntkdiag.kernel.gram import Gram

if TYPE_CHECKING:
    import torch

Array: TypeAlias = NDArray[np.float64]
GramLike: TypeAlias = "NDArray[Any] | torch.Tensor"

# Largest |K_ij - K_ji| accepted, relative to max |K_ij|: products formed in float32 pass, a wrong matrix does
# not.
SYMMETRY_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of K/N, with N samples.

    Attributes:
        values: e_1 ≥ e_2 ≥ …, [N] float64; negative ones included.
        samples: N.
        negative_mass: Σ|negative| / Σ|e| in [0, 1]; 0 for a zero matrix. Round-off leaves about 1e-16, so a
            value that can be seen means the matrix is not a Gram matrix, or is a noisy estimate of one.
        vectors: Unit eigenvectors in columns, [N, N], in the order of `values`; None from `eigenvalues`.

    Example:
        >>> found = nd.spectra.eigenvalues(np.diag([2.0, 6.0]))  # of K / N
        >>> found.values, found.samples, found.negative_mass
        (array([3., 1.]), 2, 0.0)
    """

    values: Array
    samples: int
    negative_mass: float
    vectors: Array | None = None

    @property
    def share(self) -> Array:
        """e_k / Σe, [N]; NaN for a zero matrix."""
        total = self.values.sum()
        shares: Array = np.divide(self.values, total, out=np.full_like(self.values, np.nan), where=total != 0)
        return shares


def eigenvalues(matrix: GramLike | Gram) -> Spectrum:
    """Eigenvalues of K/N for a symmetric K.

    Args:
        matrix: K, [N, N], numpy or torch, N ≥ 1; or a `Gram`.

    Returns:
        `Spectrum`, without vectors.

    Raises:
        InputError: not square, empty, not finite, or asymmetric by more than `SYMMETRY_TOLERANCE` · max|K|.

    Example:
        >>> eigenvalues([[2.0, 0.0], [0.0, 1.0]]).values
        array([1. , 0.5])
    """
    gram = gram_array(_measured(matrix))
    return _spectrum(batched_eigenvalues(gram))


def eigenpairs(matrix: GramLike | Gram) -> Spectrum:
    """`eigenvalues` with the eigenvectors filled in.

    Raises:
        InputError: as `eigenvalues`.

    Example:
        >>> nd.spectra.eigenpairs(np.diag([2.0, 6.0])).vectors[:, 0].round(12) ** 2  # of the largest eigenvalue
        array([0., 1.])
    """
    gram = gram_array(_measured(matrix))
    values, vectors = np.linalg.eigh(gram / len(gram))
    return _spectrum(values[::-1].copy(), _frozen(vectors[:, ::-1].copy()))


def batched_eigenvalues(grams: Array) -> Array:
    """Eigenvalues of K/n for a stack of symmetric matrices, without checks: the inner loop of the jackknife.

    Args:
        grams: [..., n, n] float64.

    Returns:
        [..., n], largest first.
    """
    return np.linalg.eigvalsh(grams / grams.shape[-1])[..., ::-1].copy()


def gram_array(matrix: GramLike, what: str = "Gram matrix", leading: tuple[str, ...] = ()) -> Array:
    """Check a symmetric matrix, or a stack of them, and return it as exactly symmetric float64.

    Args:
        matrix: [N, N], or [*leading, N, N].
        what: Name of the matrix in an error message.
        leading: Names of the axes before it, ("R",) for Grams of R probes.

    Raises:
        InputError: see `eigenvalues`.
    """
    array = real_array(matrix, what)
    if array.ndim != len(leading) + 2 or array.shape[-1] != array.shape[-2] or array.size == 0:
        shape = ", ".join((*leading, "N", "N"))
        raise InputError(what, expected=f"shape [{shape}] with N ≥ 1", got=f"shape {list(array.shape)}")
    transposed = array.swapaxes(-1, -2)
    gap, largest = float(np.abs(array - transposed).max()), float(np.abs(array).max())
    if gap > SYMMETRY_TOLERANCE * largest:
        raise InputError(
            what,
            expected=f"a symmetric matrix (to {SYMMETRY_TOLERANCE:g} of its largest entry)",
            got=f"a difference of {gap:.3g} between K and its transpose, largest entry {largest:.3g}",
            fix="Of features J [N, P], pass J @ J.T; of several spectra, one [N] at a time.",
        )
    return array / 2 + transposed / 2


def real_array(values: GramLike, what: str) -> Array:
    """Numpy float64 copy of real, finite numbers; torch tensors are copied to the CPU.

    Raises:
        InputError: other types, or entries that are not finite.
    """
    raw: Any = values
    if hasattr(raw, "detach"):
        raw = raw.detach().cpu()
        raw = (raw if raw.is_complex() else raw.double()).numpy()
    try:
        array = np.asarray(raw)
    except ValueError as error:  # rows of unequal length
        raise InputError(what, expected="real numbers", got=first_line(error)) from error
    if array.dtype.kind not in "fiu":
        got = f"dtype {array.dtype}" if array.ndim else type(raw).__name__
        raise InputError(what, expected="real numbers", got=got)
    array = array.astype(np.float64)
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        raise InputError(what, expected="finite entries", got=f"{wrong} of {array.size} NaN or infinite")
    return array


def _measured(matrix: GramLike | Gram) -> GramLike:
    """The matrix of a `Gram`; any other matrix as it is."""
    return matrix.matrix if isinstance(matrix, Gram) else matrix


def _spectrum(values: Array, vectors: Array | None = None) -> Spectrum:
    size = float(np.abs(values).sum())
    negative = float(np.abs(values[values < 0]).sum())
    return Spectrum(_frozen(values), len(values), negative / size if size > 0 else 0.0, vectors)


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array
