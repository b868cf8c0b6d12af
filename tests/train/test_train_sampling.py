"""The sampler against flow maps and distributions that are known exactly."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from train_cases import exact_denoiser, small_denoiser

from ntkdiag import data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.bayes import GaussianOracle
from ntkdiag.train import energy_distance, flow_map, log_likelihood, sample

COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
MEAN = torch.tensor([0.7, -0.4], dtype=torch.float64)
SCHEDULES = [
    schedules.cosine(),
    schedules.linear_beta(),
    schedules.linear_log_snr(),
    schedules.flow(),
    schedules.edm(),
]


def gaussian_denoiser(schedule, name):
    return exact_denoiser(GaussianOracle(MEAN, COVARIANCE), schedule, name)


def gaussian_flow(schedule, x, start, stop):
    """The exact flow: along each axis of the covariance a sample keeps its number of standard deviations."""
    values, basis = torch.linalg.eigh(COVARIANCE)
    (a0, s0), (a1, s1) = ((schedule.alpha(end), schedule.sigma(end)) for end in (start, stop))
    scale = torch.sqrt((a1**2 * values + s1**2) / (a0**2 * values + s0**2))
    return a1 * MEAN + ((x - a0 * MEAN) @ basis * scale) @ basis.T


def noisy(count=50, seed=0):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", ["epsilon", "x0", "v", "score", "flow", "F"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_flow_map_is_the_gaussian_one(schedule, name):
    x = schedule.sigma(-6.0) * noisy(10)
    carried = flow_map(gaussian_denoiser(schedule, name), x, -6.0, 6.0, steps=64)
    assert torch.allclose(carried, gaussian_flow(schedule, x, -6.0, 6.0), atol=4e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_error_is_of_second_order(schedule):
    denoiser, x = gaussian_denoiser(schedule, "v"), schedule.sigma(-6.0) * noisy(10)
    exact = gaussian_flow(schedule, x, -6.0, 6.0)
    errors = [
        float((flow_map(denoiser, x, -6.0, 6.0, steps=steps) - exact).square().mean().sqrt())
        for steps in (16, 32, 64, 128)
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(1.8 < order < 2.3 for order in orders), orders


def test_the_way_back_undoes_the_way_there():
    denoiser, x = gaussian_denoiser(schedules.flow(), "flow"), noisy()
    there = flow_map(denoiser, x, -5.0, 5.0, steps=200)
    assert (there - x).abs().max() > 0.1
    assert torch.allclose(flow_map(denoiser, there, 5.0, -5.0, steps=200), x, atol=2e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_a_sample_is_its_noise_carried_up_and_denoised_once_more(schedule):
    drawn = sample(gaussian_denoiser(schedule, "v"), 20, (2,), steps=100, seed=5, log_snr_range=(-6, 4))
    scale = torch.hypot(schedule.alpha(-6.0), schedule.sigma(-6.0))
    x = gaussian_flow(schedule, scale * noisy(20, seed=5), -6.0, 4.0)
    wanted = GaussianOracle(MEAN, COVARIANCE).posterior_mean(x, schedule.alpha(4.0), schedule.sigma(4.0))
    assert torch.allclose(drawn.double(), wanted, atol=2e-3)


def test_samples_of_the_exact_denoiser_have_the_gaussians_moments():
    drawn = sample(
        gaussian_denoiser(schedules.edm(), "F"), 4000, (2,), steps=32, log_snr_range=(-10, 10)
    ).double()
    spread = (COVARIANCE.diag() / 4000).sqrt()
    assert ((drawn.mean(dim=0) - MEAN).abs() < 4 * spread).all()
    assert torch.allclose(torch.cov(drawn.T), COVARIANCE, atol=4 * 1.5 / math.sqrt(4000))


def test_samples_of_the_exact_denoiser_are_those_of_the_mixture():
    mixture = data.mixture(train=16, held_out=1500, seed=3)
    drawn = sample(exact_denoiser(mixture.oracle, schedules.cosine(), "v"), 1500, (2,), seed=4)
    distance = energy_distance(drawn, mixture.held_out)
    assert abs(distance.value) < 3 * distance.stderr
    likelihood, wanted = (
        log_likelihood(drawn, mixture.oracle),
        log_likelihood(mixture.held_out, mixture.oracle),
    )
    assert abs(likelihood.value - wanted.value) < 4 * math.hypot(likelihood.stderr, wanted.stderr)


def test_samples_depend_on_the_seed_and_not_on_the_batch():
    denoiser = small_denoiser(dtype=torch.float64)
    drawn = sample(denoiser, 7, (2,), steps=4, seed=1)
    assert drawn.shape == (7, 2)
    assert drawn.dtype == torch.float64
    assert torch.allclose(sample(denoiser, 7, (2,), steps=4, seed=1, batch=3), drawn, rtol=1e-10)
    assert not torch.allclose(sample(denoiser, 7, (2,), steps=4, seed=2), drawn)
    assert sample(small_denoiser(), 1, (2,), steps=1).dtype == torch.float32


def test_default_range_is_where_the_schedule_trains():
    seen = []

    def call(network, x, log_snr, cond):
        seen.extend(log_snr.tolist())
        return torch.zeros_like(x)

    for schedule, low, high in (
        (schedules.cosine(), -10.0, 10.0),
        (schedules.linear_log_snr(-3.0, 4.0), -2.993, 3.993),
        (schedules.edm(p_mean=0.0, p_std=1.0), -6.18, 6.18),
    ):
        seen.clear()
        denoiser = small_denoiser(schedule=schedule, dtype=torch.float64)
        denoiser._call = call
        sample(denoiser, 1, (2,), steps=3)
        assert min(seen) == pytest.approx(low, abs=1e-2)
        assert max(seen) == pytest.approx(high, abs=1e-2)


def test_labels_go_with_their_samples():
    seen = []

    def call(network, x, log_snr, cond):
        seen.append(cond["label"].tolist())
        return torch.zeros_like(x)

    denoiser = Denoiser(small_denoiser().network, schedules.cosine(), "v", call=call, conditions=["label"])
    sample(denoiser, 5, (2,), steps=1, cond=torch.arange(5), batch=3)
    assert seen == [[0, 1, 2]] * 3 + [[3, 4]] * 3


def test_sampling_leaves_the_modes_and_gradients_as_they_were():
    denoiser = small_denoiser()
    denoiser.network.condition.eval()
    sample(denoiser, 2, (2,), steps=1)
    assert denoiser.training
    assert denoiser.network.out.training
    assert not denoiser.network.condition.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "count: expected an integer of at least 1"),
        ({"steps": 0}, "steps: expected an integer of at least 1"),
        ({"batch": 0}, "batch"),
        ({"log_snr_range": (3.0, -3.0)}, "log_snr_range: expected two numbers, the lower one first"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        sample(small_denoiser(), **{"count": 2, "shape": (2,), **arguments})
