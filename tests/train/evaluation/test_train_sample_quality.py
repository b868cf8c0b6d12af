"""Energy distance and likelihood against slow versions and known values."""

from __future__ import annotations

import math

import pytest
import torch

from ntkdiag import data
from ntkdiag.errors import InputError
from ntkdiag.process.bayes import MixtureOracle
from ntkdiag.train import energy_distance, energy_distance_to_data, log_likelihood


def normal(count, dims=2, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return shift + torch.randn(count, dims, generator=generator, dtype=torch.float64)


def slow_statistic(x, y):
    across = sum(float((a - b).norm()) for a in x for b in y) / (len(x) * len(y))
    within = [
        sum(float((a - b).norm()) for i, a in enumerate(z) for j, b in enumerate(z) if i != j)
        / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    return 2 * across - sum(within)


def without(x, i):
    return torch.cat([x[:i], x[i + 1 :]])


def test_value_and_standard_error_are_those_of_the_slow_jackknife():
    x, y = normal(6), normal(5, seed=1, shift=0.5)
    estimate = energy_distance(x, y)
    assert estimate.value == pytest.approx(slow_statistic(x, y), rel=1e-10)
    variance = 0.0
    for side, left_out in (
        (x, [slow_statistic(without(x, i), y) for i in range(6)]),
        (y, [slow_statistic(x, without(y, i)) for i in range(5)]),
    ):
        mean, n = sum(left_out) / len(left_out), len(side)
        variance += (n - 1) / n * sum((value - mean) ** 2 for value in left_out)
    assert estimate.stderr == pytest.approx(math.sqrt(variance), rel=1e-10)
    assert estimate.low == pytest.approx(estimate.value - 1.959964 * estimate.stderr, rel=1e-6)
    assert estimate.high == pytest.approx(estimate.value + 1.959964 * estimate.stderr, rel=1e-6)


def test_two_points_apart_have_twice_their_distance():
    apart = energy_distance(torch.zeros(4, 1), torch.full((3, 1), 1.5))
    assert apart.value == pytest.approx(3.0)
    assert apart.stderr == 0


def test_interval_covers_the_known_distance_of_two_normals():
    """The mean of |N(m, 2)| is known in closed form; the interval must hold about 95% of the time."""
    shift = 0.8
    folded = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    exact = 2 * folded - 2 * 2 / math.sqrt(math.pi)
    estimates = [energy_distance(normal(60, 1, 2 * k), normal(60, 1, 2 * k + 1, shift)) for k in range(200)]
    covered = sum(e.low < exact < e.high for e in estimates)
    assert 180 <= covered <= 199
    values = torch.tensor([e.value for e in estimates])
    assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / math.sqrt(200)


def test_equal_distributions_have_distance_zero_on_average_and_a_cautious_error():
    estimates = [energy_distance(normal(40, 2, 2 * k), normal(30, 2, 2 * k + 1)) for k in range(200)]
    values = torch.tensor([e.value for e in estimates])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(200)
    assert (values < 0).any()
    assert sum(e.low < 0 < e.high for e in estimates) >= 185
    assert sum(e.stderr**2 for e in estimates) / 200 > 0.9 * float(values.var())


def test_blocks_do_not_change_the_value(monkeypatch):
    x, y = normal(50), normal(40, seed=1)
    whole = energy_distance(x, y)
    monkeypatch.setattr("ntkdiag.train.evaluation.sample_quality._BLOCK", 100)
    assert energy_distance(x, y) == whole


def test_floor_is_the_distance_of_other_real_data():
    mixture = data.mixture(train=900, held_out=300, seed=0)
    bad = energy_distance_to_data(normal(200).float(), mixture.held_out, mixture.train)
    good = energy_distance_to_data(data.mixture(200, 1, seed=9).train, mixture.held_out, mixture.train)
    assert bad.samples.low > 3 * bad.floor.high
    assert abs(good.samples.value) < 3 * good.samples.stderr
    assert bad.floor == good.floor
    assert bad.floor.value == pytest.approx(0, abs=3 * bad.floor.stderr)
    reseeded = energy_distance_to_data(normal(200).float(), mixture.held_out, mixture.train, seed=1)
    assert reseeded.samples == bad.samples
    assert reseeded.floor != bad.floor


def test_likelihood_is_the_mean_log_density():
    oracle = MixtureOracle(torch.zeros(1, 2), std=0.5)
    samples = 0.5 * normal(20_000)
    estimate = log_likelihood(samples, oracle)
    entropy = 1 + math.log(2 * math.pi) + 2 * math.log(0.5)
    assert estimate.value == pytest.approx(-entropy, abs=4 * estimate.stderr)
    assert estimate.stderr == pytest.approx(1 / math.sqrt(20_000), rel=0.05)  # Var of a χ²(2)/2 is 1
    peak = log_likelihood(torch.zeros(3, 2), oracle)
    assert peak.value == pytest.approx(-math.log(2 * math.pi) - 2 * math.log(0.5))
    assert peak.stderr == 0


def test_too_few_or_misshapen_samples_are_refused():
    with pytest.raises(InputError, match="at least 3 samples on each side; got 2"):
        energy_distance(normal(2), normal(5))
    with pytest.raises(InputError, match=r"samples of shape \(2,\); got \(3,\)"):
        energy_distance(normal(5), normal(5, 3))
    with pytest.raises(InputError, match="at least 2 samples; got 1"):
        log_likelihood(normal(1), MixtureOracle(torch.zeros(1, 2), std=0.5))
