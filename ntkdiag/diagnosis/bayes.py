"""The Bayes reference of a diagnosis: per bucket, the loss that no training removes and the recoverable share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.process import bayes
from ntkdiag.process import target as targets
from ntkdiag.process.buckets import Buckets, PairedDraws

LINEAR = "linear lower bound of the share (MMSE of a Gaussian with the data's covariance)"


@dataclass(frozen=True)
class BayesTruth:
    """What the best possible network would do, per bucket.

    Attributes:
        source: Where the numbers come from, in words.
        share: Recoverable share of the target's variance [B], in [0, 1].
        floor: Loss that no training removes [B]; an upper bound of it where the source is linear.
        optimal: E[y | x] for every sample [B, N, D] where the posterior is exact, else None.
    """

    source: str
    share: Tensor
    floor: Tensor
    optimal: Tensor | None

    def excess(self, predictions: Tensor) -> list[float]:
        """E‖f − E[y|x]‖² per dimension and bucket, the loss that training can still remove.

        Args:
            predictions: [B, N, D].

        Returns:
            B numbers, NaN where the posterior is not known exactly.
        """
        if self.optimal is None:
            return [math.nan] * len(self.share)
        return (predictions - self.optimal).square().mean((1, 2)).tolist()


def bayes_truth(
    denoiser: Denoiser, data: Data, draws: PairedDraws, buckets: Buckets, seed: int
) -> BayesTruth:
    """The Bayes reference of a denoiser's target; from the data's covariance where the posterior is not known.

    Args:
        denoiser: Its target and schedule are used.
        data: Its oracle is used if it has one.
        draws, buckets: Those of the measurement.
        seed: Seed of Monte Carlo estimates of the oracle.
    """
    schedule, target = denoiser.schedule, denoiser.target
    log_snr = torch.tensor(buckets.centers, dtype=torch.float64)
    oracle = bayes.GaussianOracle.fit(data.train) if data.oracle is None else data.oracle
    mmse = oracle.mmse(log_snr, seed=seed)
    return BayesTruth(
        source=LINEAR if data.oracle is None else f"{oracle.name}: {oracle.label}",
        share=bayes.bayes_share(target, schedule, log_snr, mmse, data.variance),
        floor=bayes.floor(target, schedule, log_snr, mmse),
        optimal=None if data.oracle is None else _optimal(denoiser, oracle, draws, log_snr),
    )


def _optimal(denoiser: Denoiser, oracle: bayes.Oracle, draws: PairedDraws, log_snr: Tensor) -> Tensor:
    """E[y | x]: the target is linear in (x0, ε), so its mean is the target of the means."""
    schedule = denoiser.schedule
    x0, noise = draws.x0.double(), draws.epsilon.double()
    means = []
    for level in log_snr:
        alpha, sigma = schedule.alpha(level), schedule.sigma(level)
        x = schedule.diffuse(x0, noise, level)
        x0_mean = oracle.posterior_mean(x, alpha, sigma)
        epsilon_mean = (x - alpha * x0_mean) / sigma
        means.append(targets.value(denoiser.target, schedule, level, x0_mean, epsilon_mean).flatten(1))
    return torch.stack(means)
