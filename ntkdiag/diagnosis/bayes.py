"""The Bayes reference of a diagnosis: per bucket, the loss that no training removes and the recoverable share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.modes import evaluating
from ntkdiag.process import bayes
from ntkdiag.process import target as targets
from ntkdiag.process.bayes import MIN_POINTS, UnseenErrors, best_bound, cross_fitted
from ntkdiag.process.buckets import Buckets, PairedDraws
from ntkdiag.process.points import Points

BOUND = "95% bounds from estimators evaluated on samples that they were not fitted on"
NO_BOUND = "no bound: fewer than 4 training samples, so the share is at least 0"
# Held-out samples on which the network's own error is taken.
HELD_OUT = 1024
BATCH = 256
# Most products of a noisy input's and a training sample's numbers: some ten seconds on one core.
MOST_WORK = 2e10


@dataclass(frozen=True)
class BayesTruth:
    """What the best possible network would do, per bucket.

    Attributes:
        source: Where the numbers come from, in words.
        share: Recoverable share of the target's variance [B], in [0, 1]; a lower 95% bound where the posterior is not known.
        estimate: The share that the best estimator recovers on average [B]; `share` itself where the posterior is known.
        floor: Loss that no training removes [B]; an upper 95% bound where the posterior is not known.
        optimal: E[y | x] for every sample [B, N, D] where the posterior is exact, else None.
        bounds: The estimator behind the bound of each bucket; empty where the posterior is known.
    """

    source: str
    share: Tensor
    estimate: Tensor
    floor: Tensor
    optimal: Tensor | None
    bounds: tuple[str, ...] = ()

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
    denoiser: Denoiser,
    data: Data,
    draws: PairedDraws,
    buckets: Buckets,
    seed: int,
    *,
    candidates: Sequence[UnseenErrors] | None = None,
    held_out_unseen: bool = False,
) -> BayesTruth:
    """The Bayes reference of a denoiser's target: exact with the data's oracle, bounds from samples without one.

    Args:
        denoiser: Its target and schedule are used.
        data: Its oracle is used if it has one.
        draws, buckets: Those of the measurement.
        seed: Seed of Monte Carlo estimates, folds and noise.
        candidates: `bound_candidates` at the buckets' centres, where they are known already.
        held_out_unseen: The network was not trained on the held-out samples, so that its own loss there is a bound too.
    """
    log_snr = torch.tensor(buckets.centers, dtype=torch.float64)
    if data.oracle is not None:
        return _exact(denoiser, data.oracle, data.variance, draws, log_snr, seed)
    found = list(bound_candidates(data, log_snr, seed) if candidates is None else candidates)
    if held_out_unseen:
        found.append(network_errors(denoiser, data.held_out_for("held_out_unseen"), log_snr, seed))
    if not found:
        zero = torch.zeros_like(log_snr)
        return BayesTruth(NO_BOUND, zero, zero, torch.full_like(log_snr, math.nan), optimal=None)
    bound = best_bound(denoiser.target, denoiser.schedule, log_snr, found)
    network = (
        ""
        if held_out_unseen
        else "; the network's own loss is left out, since it may have seen the held-out samples"
    )
    return BayesTruth(
        BOUND + network, bound.share, bound.share_estimate, bound.floor, optimal=None, bounds=bound.names
    )


def finite_optimal(denoiser: Denoiser, data: Data, draws: PairedDraws, log_snr: Tensor) -> Tensor | None:
    """E[y | x] where x0 is one of the training samples, [B, N, D]: the optimum of the training loss itself, which memorises.

    Args:
        denoiser, data, draws: Those of the measurement.
        log_snr: Bucket centres [B].

    Returns:
        None where the training samples are not in memory, or too many for their distances to all noisy inputs (`MOST_WORK`).
    """
    points = data.train
    work = len(log_snr) * len(draws) * points.shape.numel()
    if not isinstance(points, Tensor) or work > MOST_WORK:
        return None
    return _optimal(denoiser, bayes.FiniteOracle(points), draws, log_snr)


def bound_candidates(data: Data, log_snr: Tensor, seed: int) -> list[UnseenErrors]:
    """`cross_fitted` of the training samples; none where there is an oracle, or too few samples to leave some out."""
    if data.oracle is not None or len(data.train) < MIN_POINTS:
        return []
    return cross_fitted(data.train, log_snr, seed)


def network_errors(denoiser: Denoiser, samples: Points, log_snr: Tensor, seed: int) -> UnseenErrors:
    """The network's own squared error on samples, in units of x0.

    Args:
        denoiser: Evaluated in eval mode, without gradients.
        samples: Data that the network was not trained on, [M, *shape]; the first 1,024 are used.
        log_snr: [B], finite.
        seed: Seed of the noise, which all levels share.
    """
    place = next(denoiser.parameters())
    draws = PairedDraws.draw(samples, min(len(samples), HELD_OUT), seed)
    gain = targets.x0_gain(denoiser.target, denoiser.schedule, log_snr).square()
    errors = []
    with evaluating(denoiser):
        for level in log_snr:
            parts = []
            for x0, noise in zip(draws.x0.split(BATCH), draws.epsilon.split(BATCH), strict=True):
                x, wanted = denoiser.training_pair(x0.to(place), noise.to(place), float(level))
                difference = denoiser(x, float(level)).double() - wanted.double()
                parts.append(difference.flatten(1).square().mean(1).cpu())
            errors.append(torch.cat(parts))
    flat = draws.x0.double().cpu().flatten(1)
    spread = (flat - flat.mean(0)).square().mean(1) * len(flat) / max(1, len(flat) - 1)
    return UnseenErrors("this network on held-out samples", torch.stack(errors) / gain[:, None], spread)


def _exact(
    denoiser: Denoiser,
    oracle: bayes.Oracle,
    data_variance: float,
    draws: PairedDraws,
    log_snr: Tensor,
    seed: int,
) -> BayesTruth:
    schedule, target = denoiser.schedule, denoiser.target
    mmse = oracle.mmse(log_snr, seed=seed)
    share = bayes.bayes_share(target, schedule, log_snr, mmse, data_variance)
    return BayesTruth(
        source=f"{oracle.name}: {oracle.label}",
        share=share,
        estimate=share,
        floor=bayes.floor(target, schedule, log_snr, mmse),
        optimal=_optimal(denoiser, oracle, draws, log_snr),
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
