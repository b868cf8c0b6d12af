"""How alike two Gram matrices of the same samples are: centred alignment, top eigenspaces, nearest neighbours.

All are free of the scale of either matrix. They compare kernels along training, features with inputs, and outputs with data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ntkdiag.errors import InputError, require_int
from ntkdiag.spectra.dense.centred import centred
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array


def centred_alignment(first: GramLike, second: GramLike) -> float:
    """⟨HKH, HLH⟩ / (‖HKH‖ ‖HLH‖), linear CKA where K and L are of features (Kornblith et al. 2019; Cortes et al. 2012).

    It is biased upwards by few samples: compare at equal N.

    Args:
        first, second: Of the same samples in the same order, [N, N], N ≥ 2.

    Returns:
        In [0, 1] for positive semi-definite matrices; NaN where one of them tells no samples apart.

    Raises:
        InputError: matrices that are not symmetric or differ in size, or a single sample.

    Example:
        >>> round(centred_alignment(np.diag([1.0, 2.0, 3.0]), np.diag([2.0, 4.0, 6.0])), 12)
        1.0
    """
    left, right = (centred(gram) for gram in _pair(first, second))
    size = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    return float((left * right).sum()) / size if size > 0 else float("nan")


def eigenspace_overlap(first: GramLike, second: GramLike, k: int = 4) -> float:
    """‖Uᵀ V‖²/k for the k top eigenvectors of either matrix: 1 for the same space, k/N for unrelated ones.

    Args:
        first, second: [N, N].
        k: From 1 to N.

    Returns:
        In [0, 1]; NaN where one of the matrices is zero.

    Raises:
        InputError: as `centred_alignment`, or k out of range.

    Example:
        >>> eigenspace_overlap(np.diag([3.0, 2.0, 1.0]), np.diag([1.0, 2.0, 3.0]), k=1)
        0.0
    """
    left, right = _pair(first, second)
    require_int("k", k, at_least=1)
    if k > len(left):
        raise InputError("k", expected=f"at most the {len(left)} samples", got=k)
    if not left.any() or not right.any():
        return float("nan")
    one, other = (np.linalg.eigh(gram)[1][:, -k:] for gram in (left, right))
    return min(1.0, float(np.square(one.T @ other).sum()) / k)


def neighbour_overlap(first: GramLike, second: GramLike, k: int = 5) -> float:
    """Mean share of the k nearest neighbours of a sample by one matrix that are among those by the other.

    Distances are K_ii + K_jj − 2 K_ij. Unrelated matrices have k/(N − 1).

    Args:
        first, second: [N, N].
        k: From 1 to N − 1.

    Returns:
        In [0, 1].

    Raises:
        InputError: as `centred_alignment`, or k out of range.

    Example:
        >>> line = np.outer([0.0, 1.0, 5.0, 6.0], [0.0, 1.0, 5.0, 6.0])
        >>> neighbour_overlap(line, 4 * line, k=1)
        1.0
    """
    left, right = _pair(first, second)
    shared = neighbours(left, k) & neighbours(right, k)
    return float(shared.sum(1).mean()) / k


def neighbours(gram: Array, k: int) -> NDArray[np.bool_]:
    """Which samples are among the k nearest of each, [N, N] of truth values; ties go to the earlier sample.

    Raises:
        InputError: k out of range.
    """
    require_int("k", k, at_least=1)
    if k > len(gram) - 1:
        raise InputError("k", expected=f"at most {len(gram) - 1}, the other samples", got=k)
    diagonal = np.diagonal(gram)
    distances = diagonal[:, None] + diagonal[None, :] - 2 * gram
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]
    found = np.zeros(gram.shape, dtype=bool)
    np.put_along_axis(found, nearest, True, axis=1)
    return found


def _pair(first: GramLike, second: GramLike) -> tuple[Array, Array]:
    left, right = gram_array(first), gram_array(second)
    if left.shape != right.shape:
        raise InputError(
            "Gram matrices",
            expected="two of the same samples",
            got=f"shapes {list(left.shape)} and {list(right.shape)}",
        )
    return left, right
