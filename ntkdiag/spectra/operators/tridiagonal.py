"""Lanczos tridiagonalisation: for each starting vector v, a small tridiagonal matrix that stands for the operator.

The eigenpairs of that matrix are a Gauss quadrature rule for vᵀ f(A) v (Golub & Welsch 1969). The basis is fully
reorthogonalised, because most kernels here have a rank far below their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.spectra.operators.product import Apply

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """Symmetric tridiagonal matrices, one for each of V starting vectors.

    Attributes:
        diagonal: Diagonal entries, [V, m] float64.
        beside: Off-diagonal entries, [V, m] float64; the last belongs to the step that would come next. An entry is 0 where
            the Krylov space closed; later entries of that row have no meaning.
        basis: Lanczos vectors of each step, m tensors [n, V].
    """

    diagonal: Array
    beside: Array
    basis: list[Tensor]

    @property
    def steps(self) -> int:
        """Number of products with each vector, m."""
        steps: int = self.diagonal.shape[1]
        return steps

    def length(self, v: int) -> int:
        """Steps of vector v until its Krylov space closed, at most m."""
        closed = np.flatnonzero(self.beside[v] == 0)
        return int(closed[0]) + 1 if len(closed) else self.steps


def tridiagonalise(apply: Apply, start: Tensor, steps: int, deflated: Tensor | None = None) -> Tridiagonal:
    """Lanczos from each column; all columns advance together.

    Args:
        apply: The operator, [n, b] → [n, b], symmetric.
        start: Unit vectors [n, V], orthogonal to `deflated`.
        steps: Number of products with each vector, at most n; fewer where all Krylov spaces close.
        deflated: Orthonormal columns [n, k] whose span is removed from the operator.

    Returns:
        `Tridiagonal`.
    """
    limit = rounding(start)
    basis = [start]  # each [n, V]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(steps):
        image = apply(basis[-1])
        if deflated is not None:
            image = project_out(image, deflated)
        diagonal.append((basis[-1] * image).sum(0))
        for _ in range(2):  # twice is enough (Kahan; Parlett 1998, section 6.9)
            image = _orthogonal(image, basis)
        length = image.norm(dim=0)
        alive = length > limit * torch.stack(diagonal).abs().amax(0)
        beside.append(torch.where(alive, length, 0.0))
        if not bool(alive.any()):
            break
        basis.append(torch.where(alive, image / torch.where(alive, length, 1.0), 0.0))
    entries, others = (torch.stack(part, 1).double().cpu().numpy() for part in (diagonal, beside))
    return Tridiagonal(entries, others, basis[: entries.shape[1]])


def _orthogonal(image: Tensor, basis: list[Tensor]) -> Tensor:
    """Each column of [n, V] made orthogonal to the same column of all earlier blocks."""
    if image.shape[1] == 1:
        return project_out(image, torch.cat(basis, 1))
    for earlier in basis:
        image = image - earlier * (earlier * image).sum(0)
    return image


def rounding(vectors: Tensor) -> float:
    """Share of the largest eigenvalue below which a number is rounding error, for vectors [n, ...] of this dtype."""
    return 10 * torch.finfo(vectors.dtype).eps * math.sqrt(len(vectors))


def project_out(block: Tensor, directions: Tensor) -> Tensor:
    """The part of [n, V] orthogonal to orthonormal columns [n, k]."""
    return block - directions @ (directions.mT @ block)


def gauss_rule(diagonal: Array, beside: Array) -> tuple[Array, Array]:
    """Quadrature rule of a tridiagonal matrix (Golub & Welsch 1969).

    Args:
        diagonal: [m].
        beside: Off-diagonal entries, [m − 1].

    Returns:
        Nodes [m], ascending, and weights [m] of sum 1.
    """
    nodes, vectors = eigenpairs(diagonal, beside)
    return nodes, vectors[0] ** 2


def eigenpairs(diagonal: Array, beside: Array) -> tuple[Array, Array]:
    """Eigenvalues [m], ascending, and unit eigenvectors in columns [m, m] of a tridiagonal matrix."""
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return values, vectors
