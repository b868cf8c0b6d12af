"""Lanczos quadrature with less variance and no further products: the large eigenvalues enter exactly, the rest by sampling.

After Lanczos from V random vectors, each Krylov space contains the large eigenvalues and their eigenvectors to rounding. In
the estimate of one vector, the eigenvalues that the other vectors found enter exactly, and the vector samples the rest. This
is the leave-one-out idea of XTrace (Epperly, Tropp & Webber 2024), here for tr f(A). A vector's own eigenvectors may not be
used in its own estimate: it has no component in the remaining copies of such an eigenvalue, which would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ntkdiag.spectra.operators.tridiagonal import Tridiagonal, eigenpairs, gauss_rule

Array = NDArray[np.float64]

# Ritz vectors of several Krylov spaces that are the same eigenvector differ by rounding. A squared singular value of the set
# below this is such a difference; a distinct eigenvector has about 1 or more.
_DISTINCT = 0.1
# At most this share of the dimensions enters exactly, so that enough is left of the vector to sample the rest.
_LARGEST_SHARE = 0.5


def controlled_rules(found: Tridiagonal, size: int) -> tuple[Array, Array]:
    """A quadrature rule for tr f(A) / n from each starting vector.

    Args:
        found: Lanczos from V random unit vectors.
        size: n, the dimension of the space from which they were drawn.

    Returns:
        Nodes and weights, both [V, M] and padded with zeros; each row of weights sums to 1.
    """
    ritz = _Ritz.of(found)
    rules = [_rule(found, ritz, v, size) for v in range(len(found.diagonal))]
    longest = max(len(nodes) for nodes, _ in rules)
    padded = [[np.pad(part, (0, longest - len(part))) for part in rule] for rule in rules]
    return np.stack([nodes for nodes, _ in padded]), np.stack([weights for _, weights in padded])


@dataclass(frozen=True, eq=False)
class _Ritz:
    """Converged Ritz pairs (θ, y) of all vectors, C of them.

    Attributes:
        owner: Vector in whose Krylov space the pair lies, [C].
        values: θ, [C].
        overlaps: yᵀ y', [C, C].
        on_start: yᵀ v for each starting vector v, [C, V].
    """

    owner: NDArray[np.intp]
    values: Array
    overlaps: Array
    on_start: Array

    @classmethod
    def of(cls, found: Tridiagonal) -> _Ritz:
        start = found.basis[0]
        # a smaller residual, relative to the eigenvalue, than the estimate's error from any other source
        accuracy = torch.finfo(start.dtype).eps ** 0.5
        owners, values, vectors = [], [], [start[:, :0]]
        for v in range(len(found.diagonal)):
            m = found.length(v)
            theta, small = eigenpairs(found.diagonal[v, :m], found.beside[v, : m - 1])
            residuals = found.beside[v, m - 1] * np.abs(small[-1])
            kept = (residuals <= accuracy * theta) & (theta > accuracy * np.abs(theta).max())
            basis = torch.stack([block[:, v] for block in found.basis[:m]], 1)
            vectors.append(basis @ torch.from_numpy(small[:, kept]).to(basis))
            values.append(theta[kept])
            owners.append(np.full(int(kept.sum()), v))
        y = torch.cat(vectors, 1)
        overlaps, on_start = ((y.mT @ other).double().cpu().numpy() for other in (y, start))
        return cls(np.concatenate(owners), np.concatenate(values), overlaps, on_start)

    def without(self, v: int, limit: int) -> tuple[Array, Array]:
        """Eigenvalues that the other vectors found, at most `limit` of the largest, and vᵀu for their eigenvectors u."""
        others = self.owner != v
        values, overlaps = self.values[others], self.overlaps[np.ix_(others, others)]
        squares, turned = np.linalg.eigh(overlaps)
        kept = squares > _DISTINCT
        lengths, turned = np.sqrt(squares[kept]), turned[:, kept]
        # in the orthonormal basis U = Y W / s of the span of Y, where A Y = Y Θ: UᵀAU = s WᵀΘW / s
        projected = lengths[:, None] * (turned.T * values @ turned) / lengths
        theta, rotation = np.linalg.eigh((projected + projected.T) / 2)
        along = rotation.T @ (turned.T @ self.on_start[others, v] / lengths)
        return theta[::-1][:limit], along[::-1][:limit]


def _rule(found: Tridiagonal, ritz: _Ritz, v: int, size: int) -> tuple[Array, Array]:
    """Nodes and weights of one vector: its Gauss rule, with the others' eigenvalues taken out of it and added exactly."""
    m = found.length(v)
    nodes, weights = gauss_rule(found.diagonal[v, :m], found.beside[v, : m - 1])
    exact, along = ritz.without(v, int(_LARGEST_SHARE * size))
    shares = np.square(along)
    scale = (size - len(exact)) / (1 - shares.sum())
    return np.r_[nodes, exact], np.r_[scale * weights, 1 - scale * shares] / size
