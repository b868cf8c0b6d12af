"""Principal directions: a covariance by its eigenvectors, from a matrix or from points.

Points are never turned into a D×D matrix when there are fewer of them than dimensions: images of 256×256 have 196,608.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.errors import InputError


@dataclass(frozen=True)
class Principal:
    """A covariance, Σ_k variances_k · directions_k directions_kᵀ.

    Attributes:
        variances: [r], non-negative, largest first; there is no variance in the other D − r directions.
        directions: [D, r], orthonormal columns.
    """

    variances: Tensor
    directions: Tensor

    @classmethod
    def of_points(cls, points: Tensor) -> Principal:
        """Of the empirical covariance (divisor N) of points [N, *shape]; float64 on the CPU, r = min(N, D)."""
        flat = points.detach().to("cpu", torch.float64).flatten(1)
        centred = flat - flat.mean(0)
        count, dimensions = centred.shape
        if count < dimensions:
            _, scales, rows = torch.linalg.svd(centred, full_matrices=False)
            return cls(scales.square() / count, rows.mT)
        values, vectors = torch.linalg.eigh(centred.mT @ centred / count)
        return cls(values.flip(0).clamp(min=0), vectors.flip(1))

    @classmethod
    def of_covariance(cls, covariance: Tensor, dimensions: int) -> Principal:
        """Of a matrix [D, D].

        Raises:
            InputError: another shape, not symmetric, or a negative eigenvalue.
        """
        wide = covariance.detach().to("cpu", torch.float64)
        size = (dimensions, dimensions)
        if tuple(wide.shape) != size:
            raise InputError("covariance", expected=f"shape {size}", got=tuple(wide.shape))
        if not torch.allclose(wide, wide.T, rtol=1e-5, atol=0.0):
            raise InputError("covariance", expected="a symmetric matrix", got="one that is not")
        values, vectors = torch.linalg.eigh((wide + wide.T) / 2)
        # Rounding leaves eigenvalues of a singular covariance a little below zero.
        if float(values.min()) < -1e-6 * float(values.abs().max()):
            raise InputError(
                "covariance", expected="no negative eigenvalue", got=f"{float(values.min()):.3g}"
            )
        return cls(values.flip(0).clamp(min=0), vectors.flip(1))

    def leading(self, share: float) -> Tensor:
        """The first directions that hold at least `share` of the variance, [D, m]; none if there is no variance."""
        total = self.variances.sum()
        if total <= 0:
            return self.directions[:, :0]
        count = int((self.variances.cumsum(0) / total < share).sum()) + 1
        return self.directions[:, :count]
