"""Gaussian data: the one case in which the optimal denoiser is linear and everything has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.bayes.floor import linear_mmse
from ntkdiag.process.bayes.oracle import SAMPLES, PosteriorOracle
from ntkdiag.process.schedule import Level


class GaussianOracle(PosteriorOracle):
    """x0 ~ N(mean, covariance).

    Args:
        mean: [*shape].
        covariance: [D, D], symmetric and positive semi-definite; D is the number of elements of `mean`.
        label: What its answers are.

    Raises:
        InputError: a covariance of another shape, not symmetric, or with a negative eigenvalue.
    """

    name = "gaussian"

    def __init__(self, mean: Tensor, covariance: Tensor, label: str = "exact") -> None:
        super().__init__(tuple(mean.shape))
        self.label = label
        wide = covariance.detach().to("cpu", torch.float64)
        size = (self.dimensions, self.dimensions)
        if tuple(wide.shape) != size:
            raise InputError("covariance", expected=f"shape {size}", got=tuple(wide.shape))
        if not torch.allclose(wide, wide.T, rtol=1e-5, atol=0.0):
            raise InputError("covariance", expected="a symmetric matrix", got="one that is not")
        eigenvalues, self._basis = torch.linalg.eigh((wide + wide.T) / 2)
        # Rounding leaves eigenvalues of a singular covariance a little below zero.
        if float(eigenvalues.min()) < -1e-6 * float(eigenvalues.abs().max()):
            raise InputError(
                "covariance", expected="no negative eigenvalue", got=f"{float(eigenvalues.min()):.3g}"
            )
        self.eigenvalues = eigenvalues.clamp(min=0)
        self._mean = mean.detach().to("cpu", torch.float64).flatten()

    @classmethod
    def fit(cls, points: Tensor) -> GaussianOracle:
        """The Gaussian with the mean and covariance of points [N, *shape].

        For data that is not Gaussian its posterior mean is the best linear denoiser: its MMSE is an upper
        bound of the true one, and its recoverable share a lower bound.

        Raises:
            InputError: fewer than two points.
        """
        if len(points) < 2:
            raise InputError("points", expected="at least 2 samples", got=len(points))
        flat = points.detach().to("cpu", torch.float64).flatten(1)
        covariance = torch.cov(flat.T, correction=0).reshape(flat.shape[1], flat.shape[1])
        return cls(flat.mean(0).reshape(points.shape[1:]), covariance, label="linear lower bound")

    def _sample(self, count: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(count, self.dimensions, generator=generator, dtype=torch.float64)
        return self._mean + (normal * self.eigenvalues.sqrt()) @ self._basis.T

    def mmse_estimate(self, log_snr: Level, samples: int = SAMPLES, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The closed form, with standard error zero; nothing is drawn."""
        value = linear_mmse(self.eigenvalues, log_snr)
        return value, torch.zeros_like(value)

    def _moments(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        total = alpha**2 * self.eigenvalues + sigma**2
        # total is 0 only for a direction without spread seen without noise: its mean is known exactly.
        known = total == 0
        gain = torch.where(known, 0.0, alpha * self.eigenvalues / total)
        centred = (x - alpha * self._mean) @ self._basis
        left = torch.where(known, 0.0, self.eigenvalues * sigma**2 / total)
        return self._mean + (gain * centred) @ self._basis.T, left.sum(1)
