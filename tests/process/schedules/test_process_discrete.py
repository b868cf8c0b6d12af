"""Discrete tables: steps, interpolation between them, and a last step of SNR 0."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.schedules.base import Schedule

STEPS = [6.0, 3.5, 1.0, -0.5, -4.0]
ZERO_TERMINAL = schedules.from_table([*STEPS, -math.inf])


def test_linear_beta_is_the_cumulative_product_of_ddpm() -> None:
    schedule = schedules.linear_beta()
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000, dtype=np.longdouble))
    levels = schedule.log_snr(torch.arange(1000, dtype=torch.float64))
    expected = np.log(alpha_bar / (1 - alpha_bar)).astype(np.float64)
    torch.testing.assert_close(levels, torch.from_numpy(expected), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        schedule.alpha(levels), torch.from_numpy(np.sqrt(alpha_bar).astype(np.float64)), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    ("make", "betas", "ends"),
    [
        (schedules.linear_beta, "linear", (1e-4, 0.02)),
        (schedules.scaled_linear_beta, "scaled_linear", (0.00085, 0.012)),
        (schedules.scaled_linear_beta, "scaled_linear", (0.0015, 0.0195)),
    ],
)
@pytest.mark.parametrize("steps", [2, 50, 1000])
def test_betas_are_those_of_diffusers(
    make: Callable[..., Schedule], betas: str, ends: tuple[float, float], steps: int
) -> None:
    """Of its float32 betas to their own precision; of the same formula in float64, to 1e-12."""
    scheduler = DDPMScheduler(steps, *ends, beta_schedule=betas)
    schedule = make(steps, *ends)
    levels = schedule.log_snr(torch.arange(steps, dtype=torch.float64))
    log_alpha_bar = torch.log1p(-scheduler.betas.double()).cumsum(0)
    theirs = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
    torch.testing.assert_close(levels, theirs, rtol=1e-6, atol=1e-6)
    power = 0.5 if betas == "scaled_linear" else 1.0
    exact = np.linspace(ends[0] ** power, ends[1] ** power, steps, dtype=np.longdouble) ** (1 / power)
    alpha_bar = np.cumprod(1 - exact)
    expected = np.log(alpha_bar / (1 - alpha_bar)).astype(np.float64)
    torch.testing.assert_close(levels, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)
    assert schedules.named(**schedule.describe()) == schedule


def test_scaled_betas_differ_from_linear_ones_of_the_same_ends() -> None:
    ends = (1000, 0.00085, 0.012)
    assert schedules.scaled_linear_beta(*ends) != schedules.linear_beta(*ends)
    with pytest.raises(InputError, match="scaled_linear_beta beta_end"):
        schedules.scaled_linear_beta(beta_end=1.0)


def test_tiny_betas_do_not_round_to_infinite_log_snr() -> None:
    """ᾱ = 1 − 1e-18 is 1 in float64."""
    schedule = schedules.linear_beta(steps=2, beta_start=1e-18, beta_end=1e-18)
    assert float(schedule.log_snr(0.0)) == pytest.approx(18 * math.log(10), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_is_its_own_time(dtype: torch.dtype) -> None:
    schedule = schedules.linear_beta()
    steps = torch.arange(1000, dtype=dtype)
    assert torch.equal(schedule.time(schedule.log_snr(steps)), steps)


def test_between_steps_log_snr_is_linear_and_beyond_them_constant() -> None:
    schedule = schedules.from_table(STEPS)
    assert [float(schedule.log_snr(t)) for t in (0.5, 2.25, -1.0, 9.0)] == [4.75, 0.625, 6.0, -4.0]
    assert [float(schedule.time(level)) for level in (4.75, 0.625, 100.0, -math.inf)] == [0.5, 2.25, 0.0, 4.0]


def test_zero_terminal_step_is_reached_linearly_in_alpha() -> None:
    assert float(ZERO_TERMINAL.log_snr(5.0)) == -math.inf
    assert float(ZERO_TERMINAL.time(-math.inf)) == 5.0
    last_alpha = float(ZERO_TERMINAL.alpha(-4.0))
    for part in (0.0, 0.25, 0.9):
        level = ZERO_TERMINAL.log_snr(4.0 + part)
        assert float(ZERO_TERMINAL.alpha(level)) == pytest.approx((1 - part) * last_alpha, rel=1e-12)
        assert float(ZERO_TERMINAL.time(level)) == pytest.approx(4.0 + part, abs=1e-12)
    assert float(ZERO_TERMINAL.log_snr(4.0)) == -4.0
    alpha_rate, sigma_rate = ZERO_TERMINAL.rates(-math.inf)
    assert float(alpha_rate) == pytest.approx(-last_alpha) and float(sigma_rate) == 0.0


def test_density_is_constant_between_midpoints() -> None:
    schedule = schedules.from_table(STEPS)
    # Midpoints 4.75, 2.25, 0.25, −2.25; the outer cells are mirrored: −5.75 and 7.25.
    assert schedule.support == (-5.75, 7.25)
    levels = [-5.9, -5.7, -2.3, -2.2, 0.0, 0.3, 2.2, 2.3, 4.7, 4.8, 7.2, 7.3]
    widths = [0, 3.5, 3.5, 2.5, 2.5, 2.0, 2.0, 2.5, 2.5, 2.5, 2.5, 0]
    expected = [1 / (5 * width) if width else 0.0 for width in widths]
    assert schedule.density(torch.tensor(levels, dtype=torch.float64)).tolist() == pytest.approx(expected)
    assert [float(schedule.cdf(x)) for x in (-9.0, -5.75, -2.25, 4.75, 7.25, 9.0)] == pytest.approx(
        [0, 0, 0.2, 0.8, 1, 1]
    )


def test_zero_terminal_step_is_an_atom_of_the_density() -> None:
    assert ZERO_TERMINAL.support == (-math.inf, 7.25)
    assert float(ZERO_TERMINAL.cdf(-math.inf)) == pytest.approx(1 / 6)
    assert float(ZERO_TERMINAL.cdf(-50.0)) == pytest.approx(1 / 6)
    assert float(ZERO_TERMINAL.density(-50.0)) == 0.0
    assert float(ZERO_TERMINAL.quantile(0.1)) == -math.inf
    assert float(ZERO_TERMINAL.quantile(1 / 6 + 1e-9)) == pytest.approx(-5.75, abs=1e-6)


def test_samples_are_steps_each_equally_often() -> None:
    draws = ZERO_TERMINAL.sample(6000, torch.Generator().manual_seed(1))
    counts = [int((draws == level).sum()) for level in [*STEPS, -math.inf]]
    assert sum(counts) == 6000
    assert max(abs(count - 1000) for count in counts) < 5 * math.sqrt(6000 * 5 / 36)


def test_table_takes_tensors_and_arrays_alike() -> None:
    expected = schedules.from_table(STEPS)
    assert schedules.from_table(torch.tensor(STEPS)) == expected
    assert schedules.from_table(np.array(STEPS)) == expected
    assert expected.discrete and expected.variance_preserving


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([1.0, 1.0, 0.0], "strictly decreasing log-SNR; got 1.0 at step 0, then 1.0"),
        ([0.0, 1.0], "from clean to noisy"),
        ([1.0, math.nan, 0.0], "strictly decreasing"),
        ([math.inf, 1.0, 0.0], "−inf nowhere but in the last"),
        ([1.0, -math.inf], "at least two finite"),
        ([1.0], "at least two finite"),
        ([], "at least two finite"),
        ("abc", "a flat list of numbers; got str"),
        ([[1.0], [0.0, 2.0]], "a flat list of numbers"),
        (3.0, "a flat list of numbers; got float"),
    ],
)
def test_bad_tables_are_refused_in_words(table: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        schedules.from_table(table)  # type: ignore[arg-type]


def test_a_table_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(InputError, match="linear_beta steps: expected at most 1,000,000; got 1000001"):
        schedules.linear_beta(steps=1_000_001)
