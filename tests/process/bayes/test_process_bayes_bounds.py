"""Bounds of the MMSE from samples: on the right side, tight where they can be, and never from the samples fitted on."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.covariance import OAS
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.bayes import (
    FiniteOracle,
    MixtureOracle,
    UnseenErrors,
    bayes_share,
    best_bound,
    cross_fitted,
    linear_mmse,
)
from ntkdiag.process.bayes.bounds import linear_errors, posterior_errors, upper_limit

LEVELS = torch.tensor([-4.0, 0.0, 4.0], dtype=torch.float64)
TARGETS = ("epsilon", "x0", "v")


def gaussian(count: int, variances: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, len(variances), generator=generator, dtype=torch.float64) * variances.sqrt()


@pytest.mark.parametrize("samples", [48, 1000])
def test_white_data_of_many_dimensions_is_not_called_recoverable(samples: int) -> None:
    """σ = 0.5 under EDM: a covariance fitted and evaluated on the same 48 samples read 0.53 for x0's 0.20."""
    path, variances = schedules.edm(sigma_data=0.5), torch.full((192,), 0.25, dtype=torch.float64)
    candidates = cross_fitted(gaussian(samples, variances, 0), LEVELS)
    exact = linear_mmse(variances, LEVELS)
    for target, expected in (("x0", 0.2), ("epsilon", 0.8), ("F", 0.0)):
        truth = bayes_share(target, path, LEVELS, exact, 0.25)
        assert float(truth[1]) == pytest.approx(expected, abs=1e-12)
        found = best_bound(target, path, LEVELS, candidates)
        assert (found.share <= truth + 1e-12).all()
        assert (truth - found.share).max() < (0.06 if samples == 48 else 0.01)


@pytest.mark.parametrize(("dimensions", "samples"), [(2, 16), (2, 256), (24, 16), (24, 64)])
def test_a_stated_bound_is_wrong_in_at_most_one_draw_of_twenty(dimensions: int, samples: int) -> None:
    """The reduced form of `analysis/coverage/shares.py`, at the worst levels and with a margin for 100 draws."""
    variances = torch.tensor([1.0] + [0.05] * (dimensions - 1), dtype=torch.float64)
    path, draws = schedules.cosine(), 100
    exact = linear_mmse(variances, LEVELS)
    wrong = {target: torch.zeros(len(LEVELS)) for target in TARGETS}
    for seed in range(draws):
        candidates = cross_fitted(gaussian(samples, variances, seed), LEVELS, seed)
        for target in TARGETS:
            truth = bayes_share(target, path, LEVELS, exact, float(variances.mean()))
            wrong[target] += best_bound(target, path, LEVELS, candidates).share > truth + 1e-12
    assert (
        max(float(each.max()) for each in wrong.values()) <= 10
    )  # of 100 at 5%: 10 or fewer in 99% of cases


def test_many_samples_of_separate_modes_are_served_by_their_posterior() -> None:
    """The linear bound would say 0.35 at log-SNR 4, where the modes tell 0.53 of ε."""
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    oracle = MixtureOracle(torch.stack([angles.cos(), angles.sin()], 1), 0.1)
    points = oracle.sample(2000, torch.Generator().manual_seed(1))
    level = torch.tensor([4.0], dtype=torch.float64)
    linear, posterior = cross_fitted(points, level)
    path = schedules.cosine()
    found = best_bound("epsilon", path, level, [linear, posterior])
    truth = bayes_share("epsilon", path, level, oracle.mmse(level, samples=100_000), 0.51)
    assert found.names == ("posterior mean over the other samples",)
    assert 0.85 * float(truth) < float(found.share) <= float(truth)
    assert float(best_bound("epsilon", path, level, [linear]).share) < 0.8 * float(found.share)


def test_linear_errors_are_those_of_the_denoiser_with_that_covariance() -> None:
    """Against draws of the noise, with scikit-learn's shrunk covariance, below and above as many samples as dimensions."""
    generator = torch.Generator().manual_seed(3)
    for count, dimensions in ((12, 30), (80, 6)):
        fit = gaussian(count, torch.linspace(1, 0.1, dimensions, dtype=torch.float64), 1)
        test = gaussian(3, torch.linspace(1, 0.1, dimensions, dtype=torch.float64), 2)
        level = torch.tensor(1.0, dtype=torch.float64)
        alpha, sigma = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
        covariance = oas(fit)
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(dimensions))
        noise = torch.randn(20_000, 1, dimensions, generator=generator, dtype=torch.float64)
        x = alpha * test + sigma * noise
        estimate = fit.mean(0) + (x - alpha * fit.mean(0)) @ gain.T
        expected = (estimate - test).square().mean(2)
        got = linear_errors(fit, test, level[None])[0]
        assert ((got - expected.mean(0)).abs() < 4 * expected.std(0) / math.sqrt(20_000)).all()


def oas(points: Tensor) -> Tensor:
    """Equation 23 of Chen et al. 2010 with its terms of 2/D, written out on matrices."""
    count, dimensions = points.shape
    centred = points - points.mean(0)
    empirical = centred.T @ centred / count
    trace, square = empirical.trace(), (empirical @ empirical).trace()
    numerator = (1 - 2 / dimensions) * square + trace**2
    amount = numerator / ((count + 1 - 2 / dimensions) * (square - trace**2 / dimensions))
    amount = amount.clamp(max=1)
    return (1 - amount) * empirical + amount * trace / dimensions * torch.eye(dimensions, dtype=torch.float64)


def test_the_shrinkage_is_that_of_scikit_learn_up_to_its_terms_of_two_over_dimensions() -> None:
    points = gaussian(60, torch.linspace(1, 0.01, 200, dtype=torch.float64), 5)
    other = torch.from_numpy(OAS().fit(points.numpy()).covariance_)
    assert torch.allclose(oas(points), other, atol=0.02 * float(other.diagonal().mean()))


def test_no_sample_is_evaluated_by_what_was_fitted_on_it() -> None:
    """A posterior over the sample itself would have no error where the noise is small."""
    points = gaussian(40, torch.ones(5, dtype=torch.float64), 7)
    level = torch.tensor([20.0], dtype=torch.float64)
    _, posterior = cross_fitted(points, level)
    distances = torch.cdist(points, points).fill_diagonal_(math.inf).amin(1).square() / 5
    assert (posterior.errors[0].sort().values >= distances.sort().values - 1e-9).all()
    own = posterior_errors(points, points, level, 1, torch.Generator().manual_seed(0))
    assert float(own.max()) < 1e-6
    assert FiniteOracle(points).label == "memorises the training set"


def test_the_best_bound_pays_for_the_choice() -> None:
    """The same errors offered twice give a wider limit than offered once."""
    errors = UnseenErrors("a", torch.rand(3, 20, dtype=torch.float64), torch.ones(20, dtype=torch.float64))
    once = best_bound("x0", schedules.cosine(), LEVELS, [errors])
    twice = best_bound("x0", schedules.cosine(), LEVELS, [errors, errors])
    assert (twice.share < once.share).all() and (twice.floor > once.floor).all()
    assert torch.equal(twice.share_estimate, once.share_estimate)


def test_upper_limits_of_skewed_means_are_wrong_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(9)
    for count, allowed in ((16, 0.075), (64, 0.065), (256, 0.06)):
        values = torch.randn(4000, count, 4, generator=generator, dtype=torch.float64).square().mean(2)
        wrong = float((upper_limit(values, 0.95) < 1).double().mean())
        assert 0.03 < wrong < allowed


def test_errors_worse_than_the_variance_leave_a_share_of_at_least_nothing() -> None:
    errors = UnseenErrors(
        "bad", torch.full((3, 9), 5.0, dtype=torch.float64), torch.ones(9, dtype=torch.float64)
    )
    found = best_bound("x0", schedules.cosine(), LEVELS, [errors])
    assert found.share.tolist() == [0, 0, 0] == found.share_estimate.tolist()


def test_fewer_than_four_samples_are_refused() -> None:
    with pytest.raises(InputError, match="points: expected at least 4 samples"):
        cross_fitted(torch.ones(3, 2), LEVELS)


def test_equal_seeds_give_equal_bounds_on_many_and_large_samples() -> None:
    points = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    first, again = (cross_fitted(points, LEVELS, seed=4) for _ in range(2))
    assert all(torch.equal(a.errors, b.errors) for a, b in zip(first, again, strict=True))
    assert first[0].errors.shape == (3, 4096)
