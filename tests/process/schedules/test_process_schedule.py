"""Schedules: every path and density against its definition in time, quadrature and sampling."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.log_snr import expand
from ntkdiag.process.schedules.base import Schedule

CONTINUOUS = {
    "cosine": schedules.cosine(),
    "linear_log_snr": schedules.linear_log_snr(-9.0, 7.0),
    "flow": schedules.flow(),
    "flow_logit_normal": schedules.flow(0.3, 0.8),
    "flow_shifted": schedules.flow(shift=3.0),
    "edm": schedules.edm(),
}
TABLES = {
    "linear_beta": schedules.linear_beta(),
    "table": schedules.from_table([6.0, 3.5, 1.0, -0.5, -4.0]),
    "zero_terminal": schedules.from_table([6.0, 3.5, 1.0, -0.5, -4.0, -math.inf]),
}
ALL = CONTINUOUS | TABLES
GRID = torch.linspace(-8.5, 6.5, 31, dtype=torch.float64)

every = pytest.mark.parametrize("schedule", ALL.values(), ids=ALL.keys())
continuous = pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS.keys())


def close(actual: torch.Tensor, expected: torch.Tensor, rtol: float = 1e-12, atol: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


# --- paths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [0.01, 0.3, 0.5, 0.8, 0.99])
def test_cosine_path_is_cos_and_sin_of_time(time: float) -> None:
    schedule = schedules.cosine()
    level = schedule.log_snr(time)
    assert float(level) == pytest.approx(-2 * math.log(math.tan(math.pi * time / 2)), rel=1e-12, abs=1e-14)
    assert float(schedule.alpha(level)) == pytest.approx(math.cos(math.pi * time / 2), rel=1e-12)
    assert float(schedule.sigma(level)) == pytest.approx(math.sin(math.pi * time / 2), rel=1e-12)


@pytest.mark.parametrize("time", [0.01, 0.3, 0.5, 0.8, 0.99])
def test_flow_path_is_linear_in_time(time: float) -> None:
    schedule = schedules.flow()
    level = schedule.log_snr(time)
    assert float(level) == pytest.approx(2 * math.log((1 - time) / time), rel=1e-12)
    assert float(schedule.alpha(level)) == pytest.approx(1 - time, rel=1e-12)
    assert float(schedule.sigma(level)) == pytest.approx(time, rel=1e-12)


@pytest.mark.parametrize("noise", [0.002, 0.5, 1.0, 80.0])
def test_edm_path_adds_noise_of_level_s(noise: float) -> None:
    schedule = schedules.edm()
    level = schedule.log_snr(noise)
    assert float(level) == pytest.approx(-2 * math.log(noise), rel=1e-12)
    assert float(schedule.alpha(level)) == 1.0
    assert float(schedule.sigma(level)) == pytest.approx(noise, rel=1e-12)


def test_linear_log_snr_falls_from_max_to_min() -> None:
    schedule = schedules.linear_log_snr(-9.0, 7.0)
    assert [float(schedule.log_snr(t)) for t in (0.0, 0.25, 1.0)] == [7.0, 3.0, -9.0]
    assert schedule.support == (-9.0, 7.0)


@every
def test_log_snr_is_that_of_alpha_and_sigma(schedule: Schedule) -> None:
    close(2 * (schedule.alpha(GRID).log() - schedule.sigma(GRID).log()), GRID, atol=1e-12)


@every
def test_variance_preserving_says_so(schedule: Schedule) -> None:
    power = schedule.alpha(GRID) ** 2 + schedule.sigma(GRID) ** 2
    assert torch.allclose(power, torch.ones_like(power), rtol=1e-14) == schedule.variance_preserving


@continuous
@settings(max_examples=30, deadline=None)
@given(level=st.floats(-30, 30))
def test_time_and_log_snr_are_inverse(schedule: Schedule, level: float) -> None:
    # t near 1 resolves the log-SNR of noisy ends only as far as 1 − t does.
    tolerance = 1e-12 + 8 * 2.0**-52 * math.exp(abs(level) / 2)
    assert float(schedule.log_snr(schedule.time(level))) == pytest.approx(level, rel=1e-12, abs=tolerance)


@every
def test_time_grows_with_noise(schedule: Schedule) -> None:
    inside = GRID if not schedule.discrete else torch.linspace(-3.9, 5.9, 21, dtype=torch.float64)
    assert bool((schedule.time(inside).diff() < 0).all())


@every
def test_rates_are_the_derivatives_in_time(schedule: Schedule) -> None:
    levels = torch.linspace(-3.77, 5.77, 10, dtype=torch.float64)  # no step of a table
    time, step = schedule.time(levels), 1e-6
    ahead, behind = schedule.log_snr(time + step), schedule.log_snr(time - step)
    for rate, path in zip(schedule.rates(levels), (schedule.alpha, schedule.sigma), strict=True):
        close(rate, (path(ahead) - path(behind)) / (2 * step), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("schedule", "clean", "noisy"),
    [
        (schedules.cosine(), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0)),
        (schedules.flow(), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0)),
        (schedules.edm(), (1.0, 0.0, 0.0), (1.0, math.inf, math.inf)),
        (TABLES["zero_terminal"], (1.0, 0.0, 0.0), (0.0, 1.0, 5.0)),
    ],
    ids=["cosine", "flow", "edm", "zero_terminal"],
)
def test_infinite_log_snr_is_exact(
    schedule: Schedule, clean: tuple[float, ...], noisy: tuple[float, ...]
) -> None:
    for level, expected in ((math.inf, clean), (-math.inf, noisy)):
        got = (schedule.alpha(level), schedule.sigma(level), schedule.time(level))
        assert tuple(map(float, got)) == expected


@pytest.mark.parametrize("name", ["cosine", "flow", "edm"])
def test_ends_of_time_are_infinite_log_snr(name: str) -> None:
    schedule = CONTINUOUS[name]
    assert float(schedule.log_snr(0.0)) == math.inf
    assert float(schedule.log_snr(math.inf if name == "edm" else 1.0)) == -math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("level", [-80.0, -9.0, 9.0, 80.0])
def test_low_precision_keeps_its_relative_accuracy_at_both_ends(dtype: torch.dtype, level: float) -> None:
    """1 − ᾱ in half precision is 0 from log-SNR 8 on; σ must be right wherever the dtype can hold it."""
    given_level = torch.tensor(level, dtype=dtype)
    resolution = torch.finfo(dtype)
    for schedule in (schedules.cosine(), schedules.flow()):
        for path in (schedule.alpha, schedule.sigma):
            result, exact = path(given_level), float(path(given_level.double()))
            assert result.dtype == dtype
            # A value below the smallest normal number is rounded to a multiple of the smallest subnormal.
            atol = resolution.smallest_normal * resolution.eps
            assert float(result) == pytest.approx(exact, rel=30 * min(resolution.eps, 1e-3), abs=atol)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_functions_keep_shape_and_dtype(schedule: Schedule, dtype: torch.dtype) -> None:
    level = torch.zeros(2, 0, 3, dtype=dtype)
    results = [
        schedule.alpha(level),
        schedule.time(level),
        schedule.log_snr(level),
        schedule.density(level),
        schedule.cdf(level),
        schedule.quantile(level),
        *schedule.rates(level),
    ]
    assert {(result.shape, result.dtype) for result in results} == {(level.shape, dtype)}


@every
def test_numbers_give_float64_scalars(schedule: Schedule) -> None:
    for result in (schedule.sigma(1), schedule.time(1.0), schedule.density(0.0), schedule.quantile(0.5)):
        assert (result.dtype, result.shape) == (torch.float64, ())


@every
def test_time_works_inside_vmap(schedule: Schedule) -> None:
    levels = torch.linspace(-3, 5, 7, dtype=torch.float64)
    close(torch.func.vmap(schedule.time)(levels), schedule.time(levels))
    share = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    close(torch.func.vmap(schedule.quantile)(share), schedule.quantile(share))
    for function in (schedule.alpha, schedule.density, schedule.cdf):
        close(torch.func.vmap(function)(levels), function(levels))
    times = schedule.time(levels)
    close(torch.func.vmap(schedule.log_snr)(times), schedule.log_snr(times))


# --- densities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "closed_form"),
    [
        (schedules.cosine(), lambda x: 1 / np.cosh(x / 2) / (2 * np.pi)),
        (schedules.flow(), lambda x: 1 / np.cosh(x / 4) ** 2 / 8),
        (schedules.flow(0.3, 0.8), stats.norm(-0.6, 1.6).pdf),
        (schedules.edm(), stats.norm(2.4, 2.4).pdf),
        (schedules.edm(p_mean=-0.4, p_std=1.0), stats.norm(0.8, 2.0).pdf),
        (schedules.linear_log_snr(-9.0, 7.0), stats.uniform(-9, 16).pdf),
    ],
    ids=["cosine", "flow", "logit_normal", "edm", "edm2", "linear_log_snr"],
)
def test_density_is_the_published_closed_form(schedule: Schedule, closed_form: object) -> None:
    expected = torch.from_numpy(np.asarray(closed_form(GRID.numpy())))  # type: ignore[operator]
    close(schedule.density(GRID), expected)


@pytest.mark.parametrize("name", ["cosine", "flow", "linear_log_snr"])
def test_density_of_uniform_time_is_the_slope_of_time(name: str) -> None:
    """p(λ) = −dt/dλ when t is uniform: ties the density to the path and to nothing else."""
    schedule, step = CONTINUOUS[name], 1e-4
    inside = GRID[(GRID > -8.9) & (GRID < 6.9)]
    slope = (schedule.time(inside - step) - schedule.time(inside + step)) / (2 * step)
    close(schedule.density(inside), slope, rtol=1e-7)


def test_density_of_logit_normal_and_log_normal_time_by_change_of_variable() -> None:
    """p(λ) = p(t) |dt/dλ| with the published p(t), by finite differences."""
    step = 1e-4
    for schedule, time_density in (
        (schedules.flow(0.3, 0.8), lambda t: stats.norm(0.3, 0.8).pdf(np.log(t / (1 - t))) / (t * (1 - t))),
        (schedules.edm(), lambda s: stats.norm(-1.2, 1.2).pdf(np.log(s)) / s),
    ):
        slope = (schedule.time(GRID - step) - schedule.time(GRID + step)) / (2 * step)
        close(
            schedule.density(GRID), torch.from_numpy(time_density(schedule.time(GRID).numpy())) * slope, 1e-7
        )


def test_shift_moves_flow_time_as_published() -> None:
    """t' = shift t / (1 + (shift − 1) t) of a uniform t, pushed through the path."""
    time = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    shifted = 3 * time / (1 + 2 * time)
    schedule = schedules.flow(shift=3.0)
    close(schedule.cdf(schedule.log_snr(shifted)), 1 - time, rtol=1e-11)


@every
def test_density_integrates_to_one(schedule: Schedule) -> None:
    low, high = schedule.support
    low, high = max(low, -80.0), min(high, 80.0)
    edges = np.linspace(low, high, 20_001)
    middle = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
    total = float(schedule.density(middle).sum()) * (high - low) / 20_000
    atom = float(schedule.cdf(-math.inf))
    assert atom == (1 / 6 if schedule is TABLES["zero_terminal"] else 0.0)
    assert total + atom == pytest.approx(1, abs=2e-3 if schedule.discrete else 1e-6)


@every
def test_cdf_is_the_integral_of_the_density(schedule: Schedule) -> None:
    points = [-6.0, -1.3, 0.2, 2.0, 5.0]
    for low, high in pairwise(points):
        width = (high - low) / 20_000
        middle = low + width * (torch.arange(20_000, dtype=torch.float64) + 0.5)
        mass = float(schedule.density(middle).sum()) * width
        gained = float(schedule.cdf(high) - schedule.cdf(low))
        assert gained == pytest.approx(mass, abs=1e-3 if schedule.discrete else 1e-7)


@every
def test_quantile_inverts_the_cdf(schedule: Schedule) -> None:
    share = torch.linspace(0.2, 0.999, 40, dtype=torch.float64)
    close(schedule.cdf(schedule.quantile(share)), share, rtol=1e-11)


@continuous
def test_samples_follow_the_density(schedule: Schedule) -> None:
    draws = schedule.sample(4000, torch.Generator().manual_seed(5)).numpy()
    result = stats.kstest(draws, lambda x: schedule.cdf(torch.from_numpy(np.asarray(x))).numpy())
    assert result.pvalue > 1e-3


def test_samples_follow_training_in_time() -> None:
    """Draw t as training does, map it to log-SNR, and compare with `sample`: no use of the cdf."""
    numbers = np.random.default_rng(3)
    in_time = {
        "cosine": numbers.uniform(size=4000),
        "flow": numbers.uniform(size=4000),
        "flow_logit_normal": 1 / (1 + np.exp(-numbers.normal(0.3, 0.8, 4000))),
        "edm": np.exp(numbers.normal(-1.2, 1.2, 4000)),
    }
    for name, time in in_time.items():
        schedule = CONTINUOUS[name]
        draws = schedule.sample(4000, torch.Generator().manual_seed(6)).numpy()
        assert stats.ks_2samp(draws, schedule.log_snr(torch.from_numpy(time)).numpy()).pvalue > 1e-3


@every
def test_sampling_is_the_generators_alone(schedule: Schedule) -> None:
    draws = [schedule.sample(5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert draws[0].dtype == torch.float64 and schedule.sample(0, torch.Generator()).shape == (0,)
    with pytest.raises(InputError, match="count"):
        schedule.sample(-1, torch.Generator())


def test_a_uniform_draw_of_exactly_zero_gives_a_finite_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, **options: torch.zeros(count, dtype=torch.float64))
    for schedule in CONTINUOUS.values():
        assert bool(schedule.sample(1, torch.Generator()).isfinite())


# --- diffusing -----------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_diffuse_mixes_with_alpha_and_sigma(schedule: Schedule, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, epsilon = (torch.randn(3, 2, 4, 4, generator=generator, dtype=dtype) for _ in range(2))
    levels = torch.tensor([-3.0, 0.0, 4.0], dtype=torch.float64)
    together = schedule.diffuse(x0, epsilon, levels)
    assert together.dtype == dtype
    for row, level in enumerate(levels.tolist()):
        alone = schedule.diffuse(x0[row : row + 1], epsilon[row : row + 1], level)
        alpha, sigma = float(schedule.alpha(level)), float(schedule.sigma(level))
        close(alone[0], (alpha * x0[row].double() + sigma * epsilon[row].double()).to(dtype), 1e-5, 1e-6)
        close(together[row], alone[0])


def test_diffuse_without_signal_or_noise_is_exact() -> None:
    x0, epsilon = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    schedule = schedules.cosine()
    assert torch.equal(schedule.diffuse(x0, epsilon, math.inf), x0)
    assert torch.equal(schedule.diffuse(x0, epsilon, -math.inf), epsilon)


def test_a_level_in_half_precision_does_not_coarsen_float32_samples() -> None:
    x0, epsilon = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    schedule, level = schedules.cosine(), torch.tensor(1.5, dtype=torch.float16)  # exactly representable
    close(schedule.diffuse(x0, epsilon, level), schedule.diffuse(x0, epsilon, 1.5), rtol=1e-6, atol=1e-6)


def test_diffuse_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(InputError, match=r"epsilon: expected the shape \(3, 2\) of x0; got \(3, 1\)"):
        schedules.cosine().diffuse(torch.zeros(3, 2), torch.zeros(3, 1), 0.0)
    with pytest.raises(
        InputError, match=r"one for each sample of a batch of shape \(3, 2\); got shape \(2,\)"
    ):
        schedules.cosine().diffuse(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2))


def test_expand_aligns_samples_not_trailing_dimensions() -> None:
    batch = torch.ones(3, 3, dtype=torch.float32)
    product = expand(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), batch) * batch
    assert torch.equal(product, torch.tensor([[1.0] * 3, [2.0] * 3, [3.0] * 3]))
    assert expand(torch.tensor(2.0), batch).shape == ()
    assert expand(torch.ones(3), torch.ones(3)).shape == (3,)
    with pytest.raises(InputError, match="shape"):
        expand(torch.ones(3, 1), batch)


# --- names ---------------------------------------------------------------------------------------------


@every
def test_description_survives_json_and_gives_the_schedule_back(schedule: Schedule) -> None:
    text = json.dumps(schedule.describe(), allow_nan=False)
    assert schedules.named(**json.loads(text)) == schedule


@every
def test_a_schedule_prints_as_one_short_line_that_makes_it_again(schedule: Schedule) -> None:
    text = repr(schedule)
    assert text.startswith(schedule.name) and len(text) < 80
    if schedule.name != "from_table":
        assert eval(text, vars(schedules)) == schedule


def test_the_unit_of_time_is_said_and_kept() -> None:
    counted = schedules.flow(shift=3.0, time_scale=1000)
    assert repr(counted) == "flow(shift=3, time_scale=1000)"
    assert schedules.flow(shift=3.0) == counted  # one process
    assert schedules.flow(shift=3.0).describe() == {
        "name": "flow", "logit_mean": None, "logit_std": None, "shift": 3.0,
    }  # fmt: skip
    assert float(schedules.named(**counted.describe()).time(0.0)) == 500.0


def test_every_constructor_is_named_after_its_schedule() -> None:
    for name in schedules.SCHEDULES:
        parameters = {"log_snr": [1.0, 0.0]} if name == "from_table" else {}
        assert schedules.named(name, **parameters).name == name


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: schedules.named("cosin"), "Did you mean 'cosine'"),
        (lambda: schedules.named("edm", sigma_dat=1.0), "Did you mean 'sigma_data'"),
        (lambda: schedules.named("from_table"), "missing a required argument: 'log_snr'"),
        (lambda: schedules.flow(logit_mean=0.0), "both logit_mean and logit_std"),
        (lambda: schedules.flow(0.0, 0.0), "flow logit_std: expected a number above 0; got 0.0"),
        (lambda: schedules.flow(shift=-1.0), "flow shift"),
        (lambda: schedules.edm(sigma_data=0.0), "edm sigma_data"),
        (lambda: schedules.edm(p_std=math.nan), "edm p_std"),
        (lambda: schedules.edm(time_scale=0.0), "edm time_scale"),
        (lambda: schedules.flow(time_scale=-1.0), "flow time_scale"),
        (lambda: schedules.cosine(time_scale=math.inf), "cosine time_scale"),
        (lambda: schedules.linear_log_snr(3.0, 3.0), "log_snr_min < log_snr_max"),
        (lambda: schedules.linear_log_snr(-math.inf, 3.0), "finite"),
        (lambda: schedules.linear_beta(steps=1), "steps: expected an integer of at least 2"),
        (lambda: schedules.linear_beta(beta_end=1.0), "beta_end"),
    ],
)
def test_bad_parameters_are_refused_in_words(call: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()  # type: ignore[operator]
