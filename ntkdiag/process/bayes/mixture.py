"""A mixture of Gaussians: data with several modes whose posterior is known exactly.

Given x, the posterior is again a mixture: its mean is the components' posterior means, weighted by the
posterior probability of each component.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.bayes.oracle import PosteriorOracle
from ntkdiag.process.log_snr import Level, as_level

# Most elements of the [samples, components, D] intermediate: 32 MiB in float64.
_BLOCK = 2**22


class MixtureOracle(PosteriorOracle):
    """x0 ~ Σ_k w_k N(μ_k, diag std_k²).

    Args:
        means: [K, *shape].
        std: Positive standard deviations: one number, [K] (one per component) or [K, *shape].
        weights: [K], non-negative, normalised to sum 1; None for equal weights.

    Raises:
        InputError: shapes that do not fit, or values out of range.
    """

    name = "mixture"
    label = "exact posterior of the mixture"

    def __init__(self, means: Tensor, std: Level, weights: Tensor | None = None) -> None:
        if means.ndim < 2 or means.numel() == 0:
            raise InputError("mixture means", expected="[K, ...] with K of at least 1", got=list(means.shape))
        super().__init__(tuple(means.shape[1:]))
        count = len(means)
        self._means = means.detach().to("cpu", torch.float64).flatten(1)  # [K, D]
        self._variances = _spread(std, means) ** 2  # [K, D]
        self._weights = _proportions(weights, count)  # [K]

    def _sample(self, count: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(count, self.dimensions, generator=generator, dtype=torch.float64)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        component = torch.searchsorted(self._weights.cumsum(0), uniform, right=True)
        component = component.clamp(max=len(self._weights) - 1)
        return self._means[component] + self._variances[component].sqrt() * normal

    def log_density(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """ln p(x) of the noisy x = α x0 + σ ε.

        Args:
            x: [N, *shape].
            alpha: One number or [N].
            sigma: One number or [N].

        Returns:
            [N] float64, in nats.
        """
        flat, alpha, sigma = self._flatten(x, alpha, sigma)
        parts = [torch.logsumexp(self._log_joint(*block), 1) for block in self._blocks(flat, alpha, sigma)]
        return torch.cat(parts).to(x.device)

    def log_prob(self, x0: Tensor) -> Tensor:
        """ln p(x0) of the data itself, [N] float64, in nats."""
        return self.log_density(x0, 1.0, 0.0)

    def _log_joint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """ln w_k p(x | k), [N, K]."""
        variance = alpha[..., None] ** 2 * self._variances + sigma[..., None] ** 2  # [N, K, D]
        centred = x[:, None] - alpha[..., None] * self._means
        exponent = (centred**2 / variance + variance.log()).sum(2) + self.dimensions * math.log(2 * math.pi)
        return self._weights.log() - exponent / 2

    def _moments(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._block_moments(*block) for block in self._blocks(x, alpha, sigma)]
        return torch.cat([mean for mean, _ in parts]), torch.cat([spread for _, spread in parts])

    def _block_moments(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        share = torch.softmax(self._log_joint(x, alpha, sigma), dim=1)[..., None]  # [N, K, 1]
        alpha, sigma = alpha[..., None], sigma[..., None]
        total = alpha**2 * self._variances + sigma**2
        means = self._means + alpha * self._variances / total * (x[:, None] - alpha * self._means)
        mean = (share * means).sum(1)
        # Variance within the components plus variance between them; the difference form does not cancel at high SNR.
        spread = self._variances * sigma**2 / total + (means - mean[:, None]) ** 2
        return mean, (share * spread).sum((1, 2))

    def _blocks(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        rows = max(1, _BLOCK // self._means.numel())
        return list(zip(x.split(rows), alpha.split(rows), sigma.split(rows), strict=True))


def _spread(std: Level, means: Tensor) -> Tensor:
    """Standard deviations as [K, D]."""
    wide = as_level(std).detach().to("cpu", torch.float64)
    count = len(means)
    allowed = ((), (count,), tuple(means.shape))
    if tuple(wide.shape) not in allowed or not bool((wide > 0).all()) or not bool(wide.isfinite().all()):
        raise InputError(
            "mixture std",
            expected=f"positive numbers, one in all, [{count}] or {list(means.shape)}",
            got=f"shape {list(wide.shape)}, smallest {float(wide.min()) if wide.numel() else None}",
        )
    columns = wide.reshape(count, -1) if wide.ndim else wide
    return columns.expand(count, math.prod(means.shape[1:])).clone()


def _proportions(weights: Tensor | None, count: int) -> Tensor:
    """Weights as [K] of sum 1."""
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    wide = weights.detach().to("cpu", torch.float64)
    good = tuple(wide.shape) == (count,) and bool((wide >= 0).all()) and 0 < float(wide.sum()) < math.inf
    if not good:
        raise InputError("mixture weights", expected=f"{count} non-negative numbers", got=wide.tolist())
    return wide / wide.sum()
