"""The averages of the weights, against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from train_cases import QUICK, small_data, small_denoiser

from ntkdiag.train import train
from ntkdiag.train.moving_average import Average, average_decay, power_decay, power_of_width


def averaged(steps, width):
    """The average of a parameter that is drawn anew in each step, and what it was in each."""
    denoiser = small_denoiser(dtype=torch.float64)
    average = Average(denoiser, 0.9, width)
    generator, seen = torch.Generator().manual_seed(0), []
    for step in range(steps):
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        seen.append(denoiser.network.out.weight.clone())
        average.update(step)
    return average.denoiser.network.out.weight, torch.stack(seen)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("steps", [1, 2, 37])
def test_the_power_average_weighs_each_step_by_its_share_of_the_power(steps, width):
    """Step i counts (i^(γ+1) − (i−1)^(γ+1)) / t^(γ+1): the initial weights nothing, all steps together one."""
    found, seen = averaged(steps, width)
    power = power_of_width(width) + 1
    edges = np.arange(steps + 1.0) ** power / float(steps) ** power
    shares = torch.tensor(np.diff(edges))
    assert float(shares.sum()) == pytest.approx(1)
    torch.testing.assert_close(found, (shares[:, None, None] * seen).sum(0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.15, 0.288])
def test_the_width_is_the_spread_of_the_steps_in_the_average(width):
    """Of a density t^γ on [0, 1], found by integrating; and the shares of 20,000 steps have the same."""
    power = power_of_width(width)
    t = (np.arange(200_000) + 0.5) / 200_000
    density = (power + 1) * t**power
    mean = (density * t).mean()
    assert np.sqrt((density * (t - mean) ** 2).mean()) == pytest.approx(width, rel=1e-4)
    steps = 20_000
    share, shares = 1.0, np.empty(steps)
    for step in reversed(range(steps)):
        decay = power_decay(step, power)
        shares[step] = share * (1 - decay)
        share *= decay
    place = (np.arange(steps) + 0.5) / steps
    assert share == 0.0
    assert np.sqrt((shares * (place - (shares * place).sum()) ** 2).sum()) == pytest.approx(width, rel=1e-2)


def test_published_widths_have_their_powers():
    """σ_rel of 5% and 10% are γ = 16.97 and 6.94 (arXiv 2312.02696, section 3.1)."""
    assert power_of_width(0.05) == pytest.approx(16.97, abs=0.005)
    assert power_of_width(0.10) == pytest.approx(6.94, abs=0.005)


def test_the_exponential_average_forgets_its_start():
    found, seen = averaged(5, None)
    expected = torch.zeros_like(found)
    for step, value in enumerate(seen):
        decay = average_decay(step, 0.9)
        start = small_denoiser(dtype=torch.float64).network.out.weight if step == 0 else expected
        expected = decay * start + (1 - decay) * value
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_run_with_the_power_average_resumes_to_the_same_bytes(tmp_path):
    config = replace(QUICK, ema_width=0.1)
    straight = train(small_denoiser(), small_data(), None, config)
    train(small_denoiser(), small_data(), None, replace(config, steps=7), out=tmp_path / "run")
    resumed = train(small_denoiser(), small_data(), None, config, out=tmp_path / "run", resume=True)
    exponential = train(small_denoiser(), small_data(), None, QUICK)
    for name, value in straight.denoiser.state_dict().items():
        assert torch.equal(resumed.denoiser.state_dict()[name], value)
    assert not torch.equal(exponential.denoiser.network.out.weight, straight.denoiser.network.out.weight)
