"""Oracle: the posterior mean E[x0|x] of a known data distribution, and the error (MMSE) it leaves.

The MMSE of a distribution without a closed form is a mean over seeded draws. It averages the posterior variance,
not the squared error of the posterior mean: the expectation is the same and the standard error smaller
(Rao-Blackwell), since the variance does not depend on the x0 that was drawn.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_int
from ntkdiag.process.log_snr import Level, as_level, vp_alpha, vp_sigma

# Draws of a Monte Carlo MMSE: a relative standard error near 1% on the mixtures of this package.
SAMPLES = 4096


@runtime_checkable
class Oracle(Protocol):
    """The optimal denoiser of a distribution, as measurements use it.

    Attributes:
        name: Short name of the distribution.
        label: What the posterior mean is, in the words of a report ("exact posterior of the mixture").
    """

    name: str
    label: str

    def posterior_mean(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """E[x0 | x] for x = α x0 + σ ε.

        Args:
            x: [N, *shape].
            alpha: One number or [N].
            sigma: One number or [N].

        Returns:
            [N, *shape] in the dtype of `x`; computed in float64.
        """
        ...

    def mmse(self, log_snr: Level, samples: int = SAMPLES, seed: int = 0) -> Tensor:
        """E‖x0 − E[x0|x]‖² per dimension.

        Args:
            log_snr: Any shape.
            samples: Draws of the Monte Carlo estimate; not used where there is a closed form.
            seed: Seed of the draws, which are the same for every log-SNR.

        Returns:
            float64, the shape of `log_snr`.
        """
        ...

    def mmse_estimate(self, log_snr: Level, samples: int = SAMPLES, seed: int = 0) -> tuple[Tensor, Tensor]:
        """`mmse` and its standard error, zero where the value is exact."""
        ...


class PosteriorOracle(ABC):
    """What all oracles share: shapes, dtypes and Monte Carlo. A subclass adds its posterior moments of flat vectors.

    Args:
        shape: Shape of one sample, D elements.
    """

    name: str
    label: str

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dimensions = math.prod(shape)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw data [count, *shape], float64, with a generator on the CPU."""
        require_int("count", count, at_least=0)
        return self._sample(count, generator).reshape(count, *self.shape)

    @abstractmethod
    def _sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw data [count, D], float64."""

    @abstractmethod
    def _moments(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean [N, D] and total variance [N], from x [N, D], α [N, 1], σ [N, 1], all float64."""

    def posterior_mean(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """E[x0 | x]; see `Oracle.posterior_mean`.

        Raises:
            InputError: samples of another shape, or levels that are neither one nor N.
        """
        flat, alpha, sigma = self._flatten(x, alpha, sigma)
        return self._moments(flat, alpha, sigma)[0].reshape(x.shape).to(x)

    def posterior_variance(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """E[‖x0 − E[x0|x]‖² | x] / D of each sample, [N] float64; its expectation is the MMSE."""
        flat, alpha, sigma = self._flatten(x, alpha, sigma)
        return self._moments(flat, alpha, sigma)[1].to(x.device) / self.dimensions

    def mmse(self, log_snr: Level, samples: int = SAMPLES, seed: int = 0) -> Tensor:
        """MMSE per dimension; see `Oracle.mmse`."""
        return self.mmse_estimate(log_snr, samples, seed)[0]

    def mmse_estimate(self, log_snr: Level, samples: int = SAMPLES, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Mean posterior variance over draws, and its standard error.

        Args:
            log_snr: Any shape.
            samples: Number of draws of x0 and noise, at least 2.
            seed: Seed of the draws, which are the same for every log-SNR.

        Returns:
            (value, standard error), float64, each of the shape of `log_snr`.
        """
        require_int("samples", samples, at_least=2)
        level = as_level(log_snr)
        generator = torch.Generator().manual_seed(seed)
        x0 = self.sample(samples, generator)
        epsilon = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        means, errors = [], []
        for one in level.detach().double().cpu().flatten():
            alpha, sigma = vp_alpha(one), vp_sigma(one)
            spread = self.posterior_variance(alpha * x0 + sigma * epsilon, alpha, sigma)
            means.append(spread.mean())
            errors.append(spread.std() / math.sqrt(samples))
        return _stack(means, level), _stack(errors, level)

    def _flatten(self, x: Tensor, alpha: Level, sigma: Level) -> tuple[Tensor, Tensor, Tensor]:
        """x as [N, D] and levels as [N, 1], in float64 on the CPU, where the oracle computes."""
        if tuple(x.shape[1:]) != self.shape or x.ndim == 0:
            raise InputError(
                f"input of the {self.name} oracle",
                expected=f"samples [N, *{list(self.shape)}]",
                got=list(x.shape),
            )
        count = len(x)
        flat = x.detach().to("cpu", torch.float64).reshape(count, self.dimensions)
        return flat, _column("alpha", alpha, count), _column("sigma", sigma, count)


def _column(label: str, value: Level, count: int) -> Tensor:
    """One number, or one per sample, as [N, 1]."""
    level = as_level(value).detach().to("cpu", torch.float64)
    if level.ndim > 1 or level.numel() not in (1, count):
        raise InputError(label, expected=f"one number or {count}", got=f"shape {list(level.shape)}")
    return level.expand(count)[:, None]


def _stack(values: list[Tensor], like: Tensor) -> Tensor:
    if not values:
        return torch.zeros(like.shape, dtype=torch.float64, device=like.device)
    return torch.stack(values).reshape(like.shape).to(like.device)
