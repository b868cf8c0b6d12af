"""DDIM and ancestral sampling on Gaussian data, where the exact denoiser is linear and every output variance is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from train_cases import exact_denoiser, small_denoiser

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.bayes import GaussianOracle
from ntkdiag.train import sample

SCHEDULES = [schedules.cosine(), schedules.flow(), schedules.edm(), schedules.linear_beta()]
VARIANCE = 0.3
START, STOP = -8.0, 6.0


def denoiser(schedule, name="v", variance=VARIANCE, mean=0.0):
    oracle = GaussianOracle(
        torch.full((2,), mean, dtype=torch.float64), variance * torch.eye(2, dtype=torch.float64)
    )
    return exact_denoiser(oracle, schedule, name)


def gain(schedule, level, variance=VARIANCE):
    """x̂0 = gain · x for data of mean 0."""
    alpha, sigma = float(schedule.alpha(level)), float(schedule.sigma(level))
    return alpha * variance / (alpha**2 * variance + sigma**2)


def steps_of(schedule, steps, fresh):
    """Each step of the recursion x' = keep · x + add · n, worked out from the posterior q(x' | x, x0) of the process."""
    levels = torch.linspace(START, STOP, steps + 1, dtype=torch.float64).tolist()
    for now, then in pairwise(levels):
        a, s = float(schedule.alpha(now)), float(schedule.sigma(now))
        b, t = float(schedule.alpha(then)), float(schedule.sigma(then))
        k = gain(schedule, now)
        if not fresh:
            yield b * k + t * (1 - a * k) / s, 0.0
            continue
        noise = s**2 - (a / b * t) ** 2  # of the process from the later level back to this one
        variance = 1 / (
            1 / t**2 + (a / b) ** 2 / noise
        )  # precisions add: prior b·x0, t², and likelihood of x
        yield variance * (b * k / t**2 + (a / b) / noise), math.sqrt(variance)


@pytest.mark.parametrize("name", ["epsilon", "x0", "v", "score", "flow", "F"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_ddim_multiplies_its_noise_by_the_known_factor(schedule, name):
    drawn = sample(
        denoiser(schedule, name), 5, (2,), steps=7, seed=3, log_snr_range=(START, STOP), sampler="ddim"
    )
    noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    factor = float(torch.hypot(schedule.alpha(START), schedule.sigma(START)))
    for keep, _ in steps_of(schedule, 7, fresh=False):
        factor *= keep
    assert torch.allclose(drawn.double(), gain(schedule, STOP) * factor * noise, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_ancestral_samples_have_the_known_variance(schedule, steps):
    count = 20_000
    how = {"steps": steps, "log_snr_range": (START, STOP), "sampler": "ancestral", "batch": count}
    drawn = sample(denoiser(schedule), count, (2,), **how).double()
    variance = float(schedule.alpha(START) ** 2 + schedule.sigma(START) ** 2)
    for keep, add in steps_of(schedule, steps, fresh=True):
        variance = keep**2 * variance + add**2
    expected = gain(schedule, STOP) ** 2 * variance
    assert abs(float(drawn.square().mean()) / expected - 1) < 4 * math.sqrt(2 / (2 * count))
    assert abs(float(drawn.mean())) < 4 * math.sqrt(expected / (2 * count))


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_with_many_steps_the_variance_is_that_of_the_data(sampler):
    schedule, count = schedules.cosine(), 4000
    how = {"steps": 200, "log_snr_range": (-10.0, 10.0), "sampler": sampler, "batch": count}
    drawn = sample(denoiser(schedule, mean=0.7), count, (2,), **how).double()
    assert abs(float(drawn.var()) / VARIANCE - 1) < 0.01 + 4 * math.sqrt(1 / count)
    assert abs(float(drawn.mean()) - 0.7) < 0.005 + 4 * math.sqrt(VARIANCE / (2 * count))


def test_the_noise_of_each_step_is_new():
    """The last two steps of a network that predicts x0 = 0: what remains of both noises at the end is not the same twice."""
    seen = []

    def call(network, x, log_snr, cond):
        seen.append(x)
        return torch.zeros_like(x)

    schedule = schedules.cosine()
    zero = nd.Denoiser(small_denoiser(dtype=torch.float64).network, schedule, "x0", call=call)
    sample(zero, 4, (2,), steps=3, log_snr_range=(-6.0, 6.0), sampler="ancestral")
    noises, kept = [], math.exp(-2.0)  # √r of steps of 4
    for before, after, (now, then) in zip(
        seen[:-1], seen[1:], [(-6.0, -2.0), (-2.0, 2.0), (2.0, 6.0)], strict=True
    ):
        epsilon, later = before / schedule.sigma(now), after / schedule.sigma(then)
        noises.append((later - kept * epsilon) / math.sqrt(1 - kept**2))
    noises.append(seen[0] / schedule.sigma(-6.0))
    for k, one in enumerate(noises):
        assert 0.3 < one.std() < 2
        assert not any(torch.allclose(one, other, atol=0.1) for other in noises[:k])


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_samples_depend_on_the_seed_and_not_on_the_batch(sampler):
    network = small_denoiser(dtype=torch.float64)
    drawn = sample(network, 7, (2,), steps=4, seed=1, sampler=sampler)
    again = sample(network, 7, (2,), steps=4, seed=1, sampler=sampler, batch=3)
    assert torch.allclose(again, drawn, rtol=1e-10)
    assert not torch.allclose(sample(network, 7, (2,), steps=4, seed=2, sampler=sampler), drawn)


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_guidance_extrapolates_every_prediction(sampler):
    """A network that predicts x0 = its label: with guidance w the samples are those of w · label at the last step."""

    def call(network, x, log_snr, cond):
        label = cond["label"].to(x)[:, None].expand_as(x)
        return torch.where(label == 9, torch.zeros_like(x), label)

    labelled = nd.Denoiser(
        small_denoiser().network, schedules.cosine(), "x0", call=call, conditions=["label"], null={"label": 9}
    )
    cond = {"label": torch.tensor([1, 2, 3])}
    drawn = sample(labelled, 3, (2,), steps=3, cond=cond, guidance=2.5, sampler=sampler)
    assert torch.allclose(drawn, torch.tensor([2.5, 5.0, 7.5])[:, None].expand(3, 2))


def test_each_step_calls_the_network_once():
    calls = []

    def call(network, x, log_snr, cond):
        calls.append(float(log_snr[0]))
        return torch.zeros_like(x)

    counted = nd.Denoiser(small_denoiser().network, schedules.cosine(), "v", call=call)
    sample(counted, 2, (2,), steps=4, log_snr_range=(-8, 8), sampler="ddim")
    assert calls == [-8.0, -4.0, 0.0, 4.0, 8.0]


def test_unknown_samplers_and_no_steps_are_refused():
    with pytest.raises(InputError, match="sampler: expected one of heun, ddim, ancestral; got 'euler'"):
        sample(small_denoiser(), 1, (2,), sampler="euler")
    with pytest.raises(InputError, match="steps: expected an integer of at least 1"):
        sample(small_denoiser(), 1, (2,), steps=0, sampler="ddim")
