"""Gaussian data, whose optimal denoiser is linear and whose MMSE has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.bayes.floor import linear_mmse
from ntkdiag.process.bayes.oracle import SAMPLES, PosteriorOracle
from ntkdiag.process.bayes.principal import Principal
from ntkdiag.process.log_snr import Level


class GaussianOracle(PosteriorOracle):
    """x0 ~ N(mean, covariance).

    Args:
        mean: [*shape].
        covariance: [D, D], symmetric and positive semi-definite, where D is the number of elements of `mean`; or
            its principal directions.
        label: What the posterior mean is, in the words of a report.

    Attributes:
        principal: The covariance, by its principal directions.

    Raises:
        InputError: a covariance of another shape, not symmetric, or with a negative eigenvalue.
    """

    name = "gaussian"

    def __init__(self, mean: Tensor, covariance: Tensor | Principal, label: str = "exact") -> None:
        super().__init__(tuple(mean.shape))
        self.label = label
        if isinstance(covariance, Tensor):
            covariance = Principal.of_covariance(covariance, self.dimensions)
        self.principal = covariance
        self._mean = mean.detach().to("cpu", torch.float64).flatten()

    @classmethod
    def fit(cls, points: Tensor) -> GaussianOracle:
        """The Gaussian with the mean and covariance of points [N, *shape].

        For data that is not Gaussian, the posterior mean is the best linear denoiser, the MMSE is an upper
        bound of the true one, and the recoverable share is a lower bound.

        Raises:
            InputError: fewer than two points.
        """
        if len(points) < 2:
            raise InputError("points", expected="at least 2 samples", got=len(points))
        mean = points.detach().to("cpu", torch.float64).mean(0)
        return cls(mean, Principal.of_points(points), label="linear lower bound")

    def _sample(self, count: int, generator: torch.Generator) -> Tensor:
        variances, directions = self.principal.variances, self.principal.directions
        normal = torch.randn(count, len(variances), generator=generator, dtype=torch.float64)
        return self._mean + (normal * variances.sqrt()) @ directions.mT

    def mmse_estimate(self, log_snr: Level, samples: int = SAMPLES, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The closed form and a standard error of zero; `samples` and `seed` are not used."""
        variances = self.principal.variances
        value = linear_mmse(variances, log_snr) * (len(variances) / self.dimensions)
        return value, torch.zeros_like(value)

    def _moments(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        variances, directions = self.principal.variances, self.principal.directions
        total = alpha**2 * variances + sigma**2
        # total is 0 only in a direction without variance, at σ = 0: there x0 is known exactly.
        known = total == 0
        gain = torch.where(known, 0.0, alpha * variances / total)
        centred = (x - alpha * self._mean) @ directions
        left = torch.where(known, 0.0, variances * sigma**2 / total)
        return self._mean + (gain * centred) @ directions.mT, left.sum(1)
