"""Floor and recoverable share of every target, against the losses of an optimal denoiser."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdiag.errors import InputError
from ntkdiag.process import schedules, target
from ntkdiag.process.bayes import GaussianOracle, MixtureOracle, bayes_share, floor
from ntkdiag.process.schedules.base import Schedule

PATHS = {"cosine": schedules.cosine(), "flow": schedules.flow(), "edm": schedules.edm(0.7)}
every = pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS.keys())
each_target = pytest.mark.parametrize("name", target.TARGETS)
ORACLE = MixtureOracle(torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]]), 0.15)


@every
@each_target
def test_floor_is_the_loss_of_the_optimal_prediction(schedule: Schedule, name: str) -> None:
    """E[y|x] from the oracle's E[x0|x], its loss over draws: no gain is used."""
    generator = torch.Generator().manual_seed(0)
    x0 = ORACLE.sample(4000, generator)
    epsilon = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    for level in (-3.0, 0.0, 3.0):
        x = schedule.diffuse(x0, epsilon, level)
        mean = ORACLE.posterior_mean(x, schedule.alpha(level), schedule.sigma(level))
        prediction = target.convert(mean, x, level, schedule, "x0", name)
        errors = (prediction - target.value(name, schedule, level, x0, epsilon)).pow(2).mean(1)
        value, standard_error = ORACLE.mmse_estimate(level, samples=4000)
        relative = math.hypot(
            float(errors.std() / errors.mean()) / math.sqrt(4000), float(standard_error / value)
        )
        got = float(floor(name, schedule, level, value))
        assert got == pytest.approx(float(errors.mean()), rel=4 * relative)
        assert relative < 0.03


def test_floors_of_the_variance_preserving_targets() -> None:
    """SNR·m on ε, m on x0, m/σ² on v."""
    levels = torch.linspace(-8, 8, 9, dtype=torch.float64)
    mmse = torch.linspace(1, 0.1, 9, dtype=torch.float64)
    schedule = schedules.cosine()
    expected = {"epsilon": levels.exp() * mmse, "x0": mmse, "v": mmse / schedule.sigma(levels) ** 2}
    for name, value in expected.items():
        torch.testing.assert_close(floor(name, schedule, levels, mmse), value, rtol=1e-12, atol=0)


@settings(max_examples=25, deadline=None)
@given(level=st.floats(-20, 20), spread=st.floats(0.05, 20))
def test_share_of_gaussian_data_is_the_squared_correlation(level: float, spread: float) -> None:
    """For Gaussian data ρ = Cov(y, x)²/(Var y Var x), whatever the target and path."""
    oracle = GaussianOracle(torch.zeros(1), torch.tensor([[spread]], dtype=torch.float64))
    for schedule in PATHS.values():
        alpha, sigma = float(schedule.alpha(level)), float(schedule.sigma(level))
        for name in target.TARGETS:
            c_x, c_epsilon = map(float, target.coefficients(name, schedule, level))
            covariance = c_x * alpha * spread + c_epsilon * sigma
            variances = (c_x**2 * spread + c_epsilon**2) * (alpha**2 * spread + sigma**2)
            got = float(bayes_share(name, schedule, level, oracle.mmse(level), spread))
            assert got == pytest.approx(covariance**2 / variances, rel=1e-7, abs=1e-9)


@each_target
def test_share_lies_between_0_and_1_for_any_mmse(name: str) -> None:
    levels = torch.linspace(-60, 60, 25, dtype=torch.float32)
    for mmse in (0.0, 1e-3, 1.0, 100.0):
        share = bayes_share(name, schedules.cosine(), levels, torch.full((25,), mmse), 1.0)
        assert share.shape == (25,) and share.dtype == torch.float64
        assert bool(((share >= 0) & (share <= 1)).all())


def test_noise_is_recoverable_in_noise_and_data_in_data() -> None:
    """ε at low SNR, x0 at high SNR."""
    levels = torch.tensor([-9.0, 0.0, 9.0])
    mmse, spread = ORACLE.mmse(levels), ORACLE.mmse(-math.inf)
    share = {
        name: bayes_share(name, schedules.cosine(), levels, mmse, spread).tolist()
        for name in ("epsilon", "x0")
    }
    assert share["epsilon"][0] > 0.99 and share["epsilon"][2] < 0.05
    assert share["x0"][0] < 1e-3 and share["x0"][2] > 0.99


def test_unknown_target_is_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'epsilon'"):
        floor("epsilom", schedules.cosine(), 0.0, torch.tensor(1.0))
    with pytest.raises(InputError, match="target: expected one of epsilon"):
        bayes_share("y", schedules.cosine(), 0.0, torch.tensor(1.0), 1.0)
