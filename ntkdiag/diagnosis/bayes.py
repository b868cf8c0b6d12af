"""The Bayes reference of a diagnosis: per bucket, the loss that no training removes and the recoverable share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ntkdiag.conditions import Conditions, rows_of, varies
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.modes import evaluating
from ntkdiag.process import bayes
from ntkdiag.process import target as targets
from ntkdiag.process.bayes import MIN_POINTS, UnseenErrors, best_bound, cross_fitted
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.process.points import Points

BOUND = "95% bounds from estimators evaluated on samples that they were not fitted on"
# An estimator of (x, condition) may always leave the condition unused, so that a bound without it holds.
BLIND = " and that do not see the network's conditions, which only makes the bounds wider"
NO_BOUND = "no bound: fewer than 4 training samples, so the share is at least 0"
OWN_LOSS = "this network on held-out samples"
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
        data: Its oracle is used if it has one and the network's conditions tell it nothing about the samples: the oracle is
            that of all samples together, and a network that knows their labels can do better.
        draws, buckets: Those of the measurement.
        seed: Seed of Monte Carlo estimates, folds and noise.
        candidates: `bound_candidates` at the buckets' centres, where they are known already.
        held_out_unseen: The network was not trained on the held-out samples, so that its own loss there is a bound too.
    """
    log_snr = torch.tensor(buckets.centers, dtype=torch.float64)
    blind = is_informed(denoiser, data)
    if data.oracle is not None and knows_optimum(denoiser, data):
        return _exact(denoiser, data.oracle, data.variance, draws, log_snr, seed)
    found = list(bound_candidates(denoiser, data, log_snr, seed) if candidates is None else candidates)
    if held_out_unseen:
        found.append(_held_out_errors(denoiser, data, log_snr, seed))
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
        BOUND + (BLIND if blind else "") + network,
        bound.share,
        bound.share_estimate,
        bound.floor,
        optimal=None,
        bounds=bound.names,
    )


def is_informed(denoiser: Denoiser, data: Data) -> bool:
    """Whether the network's conditions differ between samples, so that it knows more of a sample than its noisy version."""
    return varies(denoiser.conditions_from(data.conditions))


def knows_optimum(denoiser: Denoiser, data: Data) -> bool:
    """Whether the best possible prediction is known: of data with an oracle, and a network that knows no more of them."""
    return data.oracle is not None and not is_informed(denoiser, data)


def exact_optimal(denoiser: Denoiser, data: Data, draws: PairedDraws, log_snr: Tensor) -> Tensor | None:
    """E[y | x] by the data's oracle, [B, N, D]; None without one, or where the network's conditions tell it more.

    Args:
        denoiser, data, draws: Those of the measurement.
        log_snr: Bucket centres [B].
    """
    if data.oracle is None or not knows_optimum(denoiser, data):
        return None
    return _optimal(denoiser, data.oracle, draws, log_snr)


def finite_optimal(denoiser: Denoiser, data: Data, draws: PairedDraws, log_snr: Tensor) -> Tensor | None:
    """E[y | x] where x0 is one of the training samples, [B, N, D]: the optimum of the training loss itself, which memorises.

    For a network that takes labels, x0 is one of the training samples with the same labels.

    Args:
        denoiser, data, draws: Those of the measurement.
        log_snr: Bucket centres [B].

    Returns:
        None where the training samples are not in memory, or too many for their distances to all noisy inputs (`MOST_WORK`),
        or where the network has conditions that are no labels.
    """
    points = data.train
    work = len(log_snr) * len(draws) * points.shape.numel()
    if not isinstance(points, Tensor) or work > MOST_WORK:
        return None
    labels = {
        name: values
        for name, values in denoiser.conditions_from(data.conditions).items()
        if varies({name: values})
    }
    if any(values.ndim > 1 or values.is_floating_point() for values in labels.values()):
        return None
    if not labels:
        return _optimal(denoiser, bayes.FiniteOracle(points), draws, log_snr)
    found = torch.empty(len(log_snr), len(draws), points.shape[1:].numel(), dtype=torch.float64)
    for row, column in _groups(labels, draws):
        part = replace(draws, x0=draws.x0[column], epsilon=draws.epsilon[column], cond={}, rows=None)
        found[:, column] = _optimal(denoiser, bayes.FiniteOracle(points[row]), part, log_snr)
    return found


def _groups(labels: Conditions, draws: PairedDraws) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions of training samples and of draws that have the same labels, for all labels of draws."""
    whole = torch.stack([values.long() for values in labels.values()], 1)  # [M, labels]
    drawn = torch.stack([draws.cond[name].long() for name in labels], 1)  # [N, labels]
    for label in drawn.unique(dim=0):
        yield (whole == label).all(1).nonzero().flatten(), (drawn == label).all(1).nonzero().flatten()


def bound_candidates(denoiser: Denoiser, data: Data, log_snr: Tensor, seed: int) -> list[UnseenErrors]:
    """`cross_fitted` of the training samples; none where the posterior is known, or too few samples to leave some out."""
    known = data.oracle is not None and not is_informed(denoiser, data)
    if known or len(data.train) < MIN_POINTS:
        return []
    return cross_fitted(data.train, log_snr, seed)


def _held_out_errors(denoiser: Denoiser, data: Data, log_snr: Tensor, seed: int) -> UnseenErrors:
    held_out = data.held_out_for("held_out_unseen")
    return network_errors(denoiser, held_out, log_snr, seed, data.held_out_conditions)


def network_errors(
    denoiser: Denoiser, samples: Points, log_snr: Tensor, seed: int, cond: Conditions | None = None
) -> UnseenErrors:
    """The network's own squared error on samples, in units of x0.

    Args:
        denoiser: Evaluated in eval mode, without gradients.
        samples: Data that the network was not trained on, [M, *shape]; the first 1,024 are used.
        log_snr: [B], finite.
        seed: Seed of the noise, which all levels share.
        cond: Conditions of the samples by name, [M, ...].
    """
    place = next(denoiser.parameters())
    draws = PairedDraws.draw(samples, min(len(samples), HELD_OUT), seed, cond=cond)
    given = denoiser.conditions_from(draws.cond)
    gain = targets.x0_gain(denoiser.target, denoiser.schedule, log_snr).square()
    errors = []
    with evaluating(denoiser):
        for level in log_snr:
            parts = []
            for part in torch.arange(len(draws)).split(BATCH):
                x0, noise = draws.x0[part].to(place), draws.epsilon[part].to(place)
                x, wanted = denoiser.training_pair(x0, noise, float(level))
                difference = (
                    denoiser(x, float(level), rows_of(given, part) or None).double() - wanted.double()
                )
                parts.append(difference.flatten(1).square().mean(1).cpu())
            errors.append(torch.cat(parts))
    flat = draws.x0.double().cpu().flatten(1)
    spread = (flat - flat.mean(0)).square().mean(1) * len(flat) / max(1, len(flat) - 1)
    return UnseenErrors(OWN_LOSS, torch.stack(errors) / gain[:, None], spread)


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
