"""Upper bounds of the MMSE from samples alone: the error of an estimator on samples that it was not fitted on.

The error of any estimator on unseen samples is at least the MMSE in expectation; on the samples that it was fitted on it
may be far below. Every estimator here is therefore fitted on all folds but one and evaluated on the one left out, and what
may be called a bound is the upper end of the interval of its mean error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process import target as targets
from ntkdiag.process.bayes.finite import FiniteOracle
from ntkdiag.process.bayes.principal import Principal
from ntkdiag.process.points import Points
from ntkdiag.process.schedules.base import Schedule

LEVEL = 0.95  # of the one-sided limits, all estimators of a noise level together
FOLDS = 8
MIN_POINTS = 4
# Samples that are used: at most so many, and so many numbers in all (64 MiB in float64); tuned here for seconds.
MAX_SAMPLES, MAX_NUMBERS, MIN_SAMPLES = 4096, 2**23, 64
# Rows of noisy samples × fitted points × dimensions of the posterior over points, a noise level; tuned here for seconds.
_POSTERIOR_BUDGET = 2**30
_POSTERIOR_ROWS = (128, 2048)


@dataclass(frozen=True)
class UnseenErrors:
    """Squared errors of one estimator of x0 on samples that it was not fitted on.

    Attributes:
        name: Of the estimator, as a report should put it.
        errors: ‖x0_i − estimate‖² per dimension, averaged over noise, [B, n].
        spread: ‖x0_i − mean‖² per dimension, scaled to be an unbiased variance, [n].
    """

    name: str
    errors: Tensor
    spread: Tensor


@dataclass(frozen=True)
class Bound:
    """The best of several bounds at each noise level.

    Attributes:
        floor: Upper limit of the irreducible loss per dimension, [B].
        share: Lower limit of the recoverable share of the target's variance, [B], in [0, 1].
        share_estimate: The same without the interval: what the best estimator recovers on average, [B].
        names: The estimator that gives the best limit of the share, B names.
    """

    floor: Tensor
    share: Tensor
    share_estimate: Tensor
    names: tuple[str, ...]


def cross_fitted(points: Points, log_snr: Tensor, seed: int = 0) -> list[UnseenErrors]:
    """Errors of a linear denoiser and of the posterior mean over a finite set, each fitted on the other folds.

    Args:
        points: Data [N, *shape], N at least 4; of many points, a random choice is used.
        log_snr: Noise levels [B], finite.
        seed: Seed of the choice, the folds and the noise.

    Returns:
        One entry per estimator.

    Raises:
        InputError: fewer than 4 points.
    """
    if len(points) < MIN_POINTS:
        raise InputError(
            "points", expected="at least 4 samples, to fit on some and evaluate on others", got=len(points)
        )
    generator = torch.Generator().manual_seed(seed)
    most = min(MAX_SAMPLES, max(MIN_SAMPLES, MAX_NUMBERS // points.shape[1:].numel()))
    chosen_points = torch.randperm(len(points), generator=generator)[:most]
    flat = points[chosen_points.to(points.device)].detach().to("cpu", torch.float64).flatten(1)
    folds = torch.arange(len(flat)).chunk(min(FOLDS, len(flat)))
    spread = (flat - flat.mean(0)).square().mean(1) * len(flat) / (len(flat) - 1)
    linear = torch.empty(len(log_snr), len(flat), dtype=torch.float64)
    posterior, chosen = [], []
    for test, fit in _splits(folds):
        linear[:, test] = linear_errors(flat[fit], flat[test], log_snr)
        rows = _posterior_rows(len(flat), len(fit), flat.shape[1])
        some = test[: max(2, math.ceil(rows * len(test) / len(flat)))]
        repeats = max(1, rows // len(flat))
        posterior.append(posterior_errors(flat[fit], flat[some], log_snr, repeats, generator))
        chosen.append(some)
    return [
        UnseenErrors("linear denoiser", linear, spread),
        UnseenErrors(
            "posterior mean over the other samples", torch.cat(posterior, 1), spread[torch.cat(chosen)]
        ),
    ]


def linear_errors(fit: Tensor, test: Tensor, log_snr: Tensor) -> Tensor:
    """Expected squared error per dimension, over the noise, of a linear denoiser with a shrunk covariance.

    The covariance is (1 − ρ) S + ρ (tr S/D) 1 with ρ of the oracle-approximating shrinkage (Chen, Wiesel, Eldar & Hero
    2010, equation 23). With eigenvalues s_k and gains g_k = SNR s_k/(SNR s_k + 1) the error of a sample with coordinates z_k
    is Σ_k (1 − g_k)² z_k² + g_k²/SNR: exact in the noise.

    Args:
        fit: Samples [M, D] to estimate mean and covariance from.
        test: Samples [n, D].
        log_snr: [B].

    Returns:
        [B, n].
    """
    dimensions = fit.shape[1]
    principal = Principal.of_points(fit)
    amount, mean_variance = _shrinkage(principal.variances, len(fit), dimensions)
    variances = (1 - amount) * principal.variances + amount * mean_variance
    centred = test - fit.mean(0)
    inside = (centred @ principal.directions).square()
    outside = (centred.square().sum(1) - inside.sum(1)).clamp(min=0)
    rest = dimensions - len(variances)
    levels = log_snr.to(torch.float64)
    gain = torch.sigmoid(levels[:, None] + variances.clamp(min=1e-300).log())
    gain_rest = torch.sigmoid(levels + math.log(max(amount * mean_variance, 1e-300)))
    noise = torch.exp(-levels) * (gain.square().sum(1) + rest * gain_rest.square())
    missed = (1 - gain).square() @ inside.T + (1 - gain_rest).square()[:, None] * outside
    return (missed + noise[:, None]) / dimensions


def posterior_errors(
    fit: Tensor, test: Tensor, log_snr: Tensor, repeats: int, generator: torch.Generator
) -> Tensor:
    """Squared error per dimension of the posterior mean over `fit`, averaged over `repeats` draws of noise; [B, n]."""
    oracle = FiniteOracle(fit)
    noise = torch.randn(repeats * len(test), fit.shape[1], generator=generator, dtype=torch.float64)
    clean = test.repeat(repeats, 1)
    found = []
    for level in log_snr.to(torch.float64):
        alpha, sigma = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
        mean = oracle.posterior_mean(alpha * clean + sigma * noise, alpha, sigma)
        found.append((mean - clean).square().mean(1).reshape(repeats, -1).mean(0))
    return torch.stack(found)


def best_bound(target: str, schedule: Schedule, log_snr: Tensor, candidates: Sequence[UnseenErrors]) -> Bound:
    """The best bound at each noise level, with the level of the limits divided by the number of candidates.

    Floor and share are k² e and 1 − k² e/(c_x² Var(x0) + c_ε²), e the mean error of an estimator of x0 (MATH 3). Limits are
    Student's t on the samples, of the ratio by the delta method, so that an uncertain variance of the data counts too.

    Args:
        target: What is predicted.
        schedule: The process.
        log_snr: [B], finite.
        candidates: Errors on unseen samples, at least one.
    """
    level = 1 - (1 - LEVEL) / len(candidates)
    levels = log_snr.to(torch.float64)
    gain = targets.x0_gain(target, schedule, levels).square()
    c_x, c_epsilon = targets.coefficients(target, schedule, levels)
    found = [_limits(each, gain, c_x.square(), c_epsilon.square(), level) for each in candidates]
    floors, ratios, estimates = (torch.stack(part) for part in zip(*found, strict=True))
    best = ratios.argmin(0)
    pick = torch.arange(len(levels))
    return Bound(
        floor=floors.amin(0),
        share=(1 - ratios[best, pick]).clamp(0, 1),
        share_estimate=(1 - estimates.amin(0)).clamp(0, 1),
        names=tuple(candidates[int(i)].name for i in best),
    )


def _limits(
    found: UnseenErrors, gain: Tensor, c_x: Tensor, c_epsilon: Tensor, level: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Upper limits of the floor and of its ratio to the target's variance, and that ratio; [B] each."""
    lost = gain[:, None] * found.errors
    whole = c_x[:, None] * found.spread + c_epsilon[:, None]
    ratio = lost.mean(1) / whole.mean(1)
    floor = upper_limit(lost, level)
    excess = upper_limit(lost - ratio[:, None] * whole, level) / whole.mean(1)
    return floor, ratio + excess, ratio


def upper_limit(values: Tensor, level: float) -> Tensor:
    """One-sided upper limit of a mean, Student's t corrected for skewness to the right.

    mean + s/√n · (t + γ (1 + 2t²)/(6√n)), γ the sample skewness where it is positive: the first term of the Edgeworth
    expansion of the studentised mean (Hall 1992, "The Bootstrap and Edgeworth Expansion", section 2.6). Errors are squares,
    so a plain t interval of few samples ends too low.

    Args:
        values: [B, n].
        level: In (0.5, 1).

    Returns:
        [B].
    """
    count = values.shape[1]
    quantile = float(special.stdtrit(count - 1, level))
    mean, deviation = values.mean(1), values.std(1)
    centred = (values - mean[:, None]) / deviation.clamp(min=1e-300)[:, None]
    skewness = centred.pow(3).mean(1).clamp(min=0)
    correction = skewness * (1 + 2 * quantile**2) / (6 * math.sqrt(count))
    return mean + deviation / math.sqrt(count) * (quantile + correction)


def _splits(folds: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """(samples to evaluate on, samples to fit on) for every fold."""
    for k, test in enumerate(folds):
        yield test, torch.cat([fold for j, fold in enumerate(folds) if j != k])


def _shrinkage(variances: Tensor, samples: int, dimensions: int) -> tuple[float, float]:
    """ρ and tr S/D of the oracle-approximating shrinkage, from the eigenvalues of S."""
    trace, square = float(variances.sum()), float(variances.square().sum())
    numerator = (1 - 2 / dimensions) * square + trace**2
    denominator = (samples + 1 - 2 / dimensions) * (square - trace**2 / dimensions)
    return (min(1.0, numerator / denominator) if denominator > 0 else 1.0), trace / dimensions


def _posterior_rows(samples: int, fitted: int, dimensions: int) -> int:
    least, most = _POSTERIOR_ROWS
    return max(least, min(most, _POSTERIOR_BUDGET // (fitted * dimensions)))
