"""Targets: every row of coefficients, every conversion, and the one objective behind all of them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process import schedules, target
from ntkdiag.process.schedules.base import Schedule

SCHEDULES = {
    "cosine": schedules.cosine(),
    "linear_beta": schedules.linear_beta(),
    "linear_log_snr": schedules.linear_log_snr(),
    "flow": schedules.flow(),
    "edm": schedules.edm(0.7),
    "zero_terminal": schedules.from_table([9.0, 3.0, 0.0, -9.0, -math.inf]),
}
GRID = torch.linspace(-8.3, 8.1, 17, dtype=torch.float64)
PAIRS = list(itertools.permutations(target.TARGETS, 2))

every = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
each_target = pytest.mark.parametrize("name", target.TARGETS)
modest = settings(max_examples=25, deadline=None)
levels = st.floats(-8.5, 8.5)


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-12, atol: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def pair(seed: int = 0, count: int = 17, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x0, epsilon = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x0.to(dtype), epsilon.to(dtype)


# --- definitions ---------------------------------------------------------------------------------------


@every
def test_coefficients_are_the_published_rows(schedule: Schedule) -> None:
    vp = schedules.cosine()
    alpha, sigma = schedule.alpha(GRID), schedule.sigma(GRID)
    s, sigma_data = sigma / alpha, schedule.sigma_data
    root = torch.sqrt(s**2 + sigma_data**2)
    rows = {
        "epsilon": (0 * s, 0 * s + 1),
        "x0": (0 * s + 1, 0 * s),
        "v": (-vp.sigma(GRID), vp.alpha(GRID)),
        "score": (0 * s, -1 / sigma),
        "flow": schedule.rates(GRID),
        "F": (s / (sigma_data * root), -sigma_data / root),
    }
    assert set(rows) == set(target.TARGETS)
    for name, (c_x, c_epsilon) in rows.items():
        got = target.coefficients(name, schedule, GRID)
        close(got[0], c_x, rtol=1e-11)
        close(got[1], c_epsilon, rtol=1e-11)


def test_linear_flow_velocity_is_noise_minus_data() -> None:
    x0, epsilon = pair()
    close(target.value("flow", schedules.flow(), GRID, x0, epsilon), epsilon - x0)


def test_velocity_is_the_time_derivative_of_the_noisy_sample() -> None:
    x0, epsilon = pair()
    for name in ("cosine", "linear_log_snr", "flow", "edm"):
        schedule, step = SCHEDULES[name], 1e-6
        time = schedule.time(GRID)
        ahead = schedule.diffuse(x0, epsilon, schedule.log_snr(time + step))
        behind = schedule.diffuse(x0, epsilon, schedule.log_snr(time - step))
        velocity = target.value("flow", schedule, GRID, x0, epsilon)
        close(velocity, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-6)


@modest
@given(level=levels, sigma_data=st.floats(0.05, 20))
def test_f_is_minus_v_of_scaled_data(level: float, sigma_data: float) -> None:
    x0, epsilon = pair()
    shifted = level + 2 * math.log(sigma_data)
    f = target.value("F", schedules.edm(sigma_data), level, x0, epsilon)
    close(f, -target.value("v", schedules.cosine(), shifted, x0 / sigma_data, epsilon), 1e-10, 1e-12)


def test_f_is_the_preconditioned_target_of_edm() -> None:
    """F = (x0 − c_skip x)/c_out, Karras et al. 2022, table 1: independent of the coefficients above."""
    sigma_data = 0.7
    schedule = schedules.edm(sigma_data)
    x0, epsilon = pair()
    s = schedule.sigma(GRID)[:, None]
    skip = sigma_data**2 / (s**2 + sigma_data**2)
    out = s * sigma_data / torch.sqrt(s**2 + sigma_data**2)
    x = schedule.diffuse(x0, epsilon, GRID)
    close(target.value("F", schedule, GRID, x0, epsilon), (x0 - skip * x) / out, 1e-9, 1e-9)


@modest
@given(level=st.floats(-30, 30))
def test_cosine_velocity_is_half_pi_v(level: float) -> None:
    schedule, (x0, epsilon) = schedules.cosine(), pair()
    velocity = target.value("flow", schedule, level, x0, epsilon)
    close(velocity, math.pi / 2 * target.value("v", schedule, level, x0, epsilon), 1e-12, 1e-14)


@every
@each_target
def test_target_given_x_is_the_gain_times_x0_plus_what_x_tells(schedule: Schedule, name: str) -> None:
    x0, epsilon = pair()
    x = schedule.diffuse(x0, epsilon, GRID)
    gain = target.x0_gain(name, schedule, GRID)
    c_x, c_epsilon = target.coefficients(name, schedule, GRID)
    close(gain, c_x - c_epsilon * schedule.alpha(GRID) / schedule.sigma(GRID), rtol=1e-11)
    told = (c_epsilon / schedule.sigma(GRID))[:, None] * x
    value = target.value(name, schedule, GRID, x0, epsilon)
    close(gain[:, None] * x0 + told, value, rtol=1e-9, atol=1e-9 * float(value.abs().max()))


@every
@each_target
def test_variance_is_that_of_draws(schedule: Schedule, name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    x0, epsilon = torch.randn(2, 20_000, 1, generator=generator, dtype=torch.float64)
    for level in (-3.0, 0.7, 3.0):
        drawn = target.value(name, schedule, level, 2 * x0, epsilon).var()
        # Relative standard error of a variance from n normal draws: √(2/n) = 1%.
        assert float(target.variance(name, schedule, level, 4.0)) == pytest.approx(float(drawn), rel=0.05)


# --- conversions of predictions ------------------------------------------------------------------------


@every
@modest
@given(level=levels, seed=st.integers(0, 1000))
def test_true_targets_convert_into_each_other(schedule: Schedule, level: float, seed: int) -> None:
    x0, epsilon = pair(seed, 4)
    x = schedule.diffuse(x0, epsilon, level)
    values = {name: target.value(name, schedule, level, x0, epsilon) for name in target.TARGETS}
    for source, destination in PAIRS:
        got = target.convert(values[source], x, level, schedule, source, destination)
        scale = float(values[destination].abs().max())
        # e^{8.5/2} = 70 and its square bound how far rounding can be amplified.
        close(got, values[destination], rtol=1e-9, atol=1e-9 * scale)


@every
@modest
@given(level=levels, seed=st.integers(0, 1000), weight=st.floats(1e-3, 1e3))
def test_the_objective_does_not_depend_on_the_target_it_is_written_on(
    schedule: Schedule, level: float, seed: int, weight: float
) -> None:
    """Any prediction at all: its weighted error is the same number in all targets."""
    x0, epsilon = pair(seed, 4)
    x = schedule.diffuse(x0, epsilon, level)
    wrong = x0 + torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=x0.dtype)
    expected = weight * ((wrong - x0) ** 2).sum()
    for name in target.TARGETS:
        prediction = target.convert(wrong, x, level, schedule, "x0", name)
        error = ((prediction - target.value(name, schedule, level, x0, epsilon)) ** 2).sum()
        close(target.convert_weight(weight, level, schedule, "x0", name) * error, expected, rtol=1e-6)


@every
@each_target
def test_per_sample_levels_equal_one_level_at_a_time(schedule: Schedule, name: str) -> None:
    prediction, x = pair()
    together = target.to_x0(name, schedule, GRID, prediction, x)
    noise = target.to_epsilon(name, schedule, GRID, prediction, x)
    for row, level in enumerate(GRID.tolist()):
        one = (prediction[row : row + 1], x[row : row + 1])
        close(target.to_x0(name, schedule, level, *one)[0], together[row])
        close(target.to_epsilon(name, schedule, level, *one)[0], noise[row])


def test_v_is_exact_without_signal_and_without_noise() -> None:
    schedule, (x0, epsilon) = schedules.cosine(), pair()
    for level, x in ((math.inf, x0), (-math.inf, epsilon)):
        v = target.value("v", schedule, level, x0, epsilon)
        assert torch.equal(target.to_x0("v", schedule, level, v, x), x0)
        assert torch.equal(target.to_epsilon("v", schedule, level, v, x), epsilon)


@pytest.mark.parametrize("name", ["x0", "v", "flow", "F"])
@pytest.mark.parametrize("schedule_name", ["cosine", "flow", "zero_terminal"])
def test_zero_snr_leaves_x0_recoverable_where_the_target_holds_it(name: str, schedule_name: str) -> None:
    schedule, (x0, epsilon) = SCHEDULES[schedule_name], pair()
    value = target.value(name, schedule, -math.inf, x0, epsilon)
    close(target.to_x0(name, schedule, -math.inf, value, epsilon), x0, 1e-12, 1e-12)


def test_zero_snr_noise_prediction_says_nothing_of_x0_but_all_of_the_score() -> None:
    schedule, (_, epsilon) = schedules.cosine(), pair()
    assert not bool(target.to_x0("epsilon", schedule, -math.inf, epsilon, epsilon).isfinite().any())
    score = target.convert(epsilon, epsilon, -math.inf, schedule, "epsilon", "score")
    assert torch.equal(score, -epsilon)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@each_target
def test_low_precision_predictions_keep_their_dtype_and_accuracy(name: str, dtype: torch.dtype) -> None:
    for schedule in (schedules.cosine(), schedules.flow(), schedules.edm()):
        prediction, x = (tensor.to(dtype) for tensor in pair())
        for level in (-6.0, 0.0, 6.0):
            for function in (target.to_x0, target.to_epsilon):
                got = function(name, schedule, level, prediction, x)
                exact = function(name, schedule, level, prediction.double(), x.double())
                assert got.dtype == dtype
                # Computed in float32, whose rounding noise amplifies by e^{6/2}; then one rounding to dtype.
                computed = 20 * torch.finfo(torch.float32).eps * math.exp(3) * x.abs().double().max()
                allowed = torch.finfo(dtype).eps * exact.abs() + computed
                assert bool(((got.double() - exact).abs() <= allowed).all())


def test_conversion_to_itself_returns_the_prediction_untouched() -> None:
    prediction, x = pair()
    for name in target.TARGETS:
        assert target.convert(prediction, x, math.inf, schedules.cosine(), name, name) is prediction


# --- conversions of weights ----------------------------------------------------------------------------


@every
def test_weight_identities(schedule: Schedule) -> None:
    vp = schedules.cosine()
    snr, alpha, sigma = GRID.exp(), vp.alpha(GRID), vp.sigma(GRID)
    s, sigma_data = (-GRID / 2).exp(), schedule.sigma_data
    weight = torch.linspace(0.3, 2, len(GRID), dtype=torch.float64)

    def on(destination: str, source: str = "x0") -> Tensor:
        return target.convert_weight(weight, GRID, schedule, source, destination)

    close(on("epsilon"), weight / snr)
    close(on("v"), weight * sigma**2)
    close(on("v", "epsilon"), weight * alpha**2)
    close(on("score", "epsilon"), weight * schedule.sigma(GRID) ** 2)
    close(on("F"), weight * s**2 * sigma_data**2 / (s**2 + sigma_data**2))


def test_linear_flow_weight_identity() -> None:
    schedule, weight = schedules.flow(), torch.linspace(0.3, 2, len(GRID), dtype=torch.float64)
    time = schedule.time(GRID)
    close(target.convert_weight(weight, GRID, schedule, "x0", "flow"), time**2 * weight)
    close(target.convert_weight(weight, GRID, schedule, "epsilon", "flow"), (1 - time) ** 2 * weight, 1e-11)


@every
@modest
@given(level=levels, weight=st.floats(1e-6, 1e6))
def test_weight_there_and_back_and_by_the_gains(schedule: Schedule, level: float, weight: float) -> None:
    for source, destination in PAIRS:
        there = target.convert_weight(weight, level, schedule, source, destination)
        back = target.convert_weight(there, level, schedule, destination, source)
        assert float(back) == pytest.approx(weight, rel=1e-10)
        gains = [float(target.x0_gain(name, schedule, level)) for name in (source, destination)]
        assert float(there) == pytest.approx(weight * gains[0] ** 2 / gains[1] ** 2, rel=1e-10)


def test_weights_at_zero_terminal_snr_take_their_limits() -> None:
    schedule = schedules.cosine()
    limits = {
        ("x0", "v"): 1.0,
        ("v", "x0"): 1.0,
        ("epsilon", "v"): 0.0,
        ("epsilon", "x0"): 0.0,
        ("epsilon", "score"): 1.0,
        ("score", "epsilon"): 1.0,
        ("v", "epsilon"): math.inf,
        ("v", "F"): 1.0,
        ("v", "flow"): 4 / math.pi**2,
    }
    for (source, destination), expected in limits.items():
        got = target.convert_weight(1.0, -math.inf, schedule, source, destination)
        assert float(got) == pytest.approx(expected, rel=1e-12), (source, destination)


@pytest.mark.parametrize("level", [-80.0, 80.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_target
def test_gain_at_extreme_snr_is_the_closed_form(level: float, dtype: torch.dtype, name: str) -> None:
    snr, vp_sigma = math.exp(level), math.sqrt(1 / (1 + math.exp(level)))
    expected = {
        "epsilon": -math.exp(level / 2),
        "x0": 1.0,
        "v": -1 / vp_sigma,
        "score": math.exp(level / 2) / vp_sigma,
        "flow": -math.pi / 2 / vp_sigma,
        "F": math.sqrt(1 + snr),
    }[name]
    got = target.x0_gain(name, schedules.cosine(), torch.tensor(level, dtype=dtype))
    assert got.dtype == dtype
    assert float(got) == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-4)


def test_gain_at_infinite_snr_has_its_limit() -> None:
    ends = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
    gains = {name: target.x0_gain(name, schedules.cosine(), ends).tolist() for name in target.TARGETS}
    assert gains["epsilon"] == [0.0, -math.inf]
    assert gains["x0"] == [1.0, 1.0]
    assert gains["v"] == [-1.0, -math.inf]
    assert gains["score"] == [0.0, math.inf]
    assert gains["flow"] == [-math.pi / 2, -math.inf]
    assert gains["F"] == [1.0, math.inf]


# --- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("eps", "epsilon"),
        ("ε", "epsilon"),
        ("sample", "x0"),
        ("v_prediction", "v"),
        ("flow_prediction", "flow"),
    ]
    + [(name, name) for name in target.TARGETS],
)
def test_names_and_aliases(text: str, name: str) -> None:
    assert target.target_name(text) == name
    close(target.x0_gain(text, schedules.flow(), GRID), target.x0_gain(name, schedules.flow(), GRID))


def test_unknown_target_is_refused_by_every_function() -> None:
    schedule, (y, x) = schedules.cosine(), pair()
    calls = [
        lambda: target.target_name("epsilom"),
        lambda: target.coefficients("epsilom", schedule, 0.0),
        lambda: target.value("epsilom", schedule, 0.0, y, x),
        lambda: target.to_x0("epsilom", schedule, 0.0, y, x),
        lambda: target.to_epsilon("epsilom", schedule, 0.0, y, x),
        lambda: target.convert(y, x, 0.0, schedule, "epsilom", "x0"),
        lambda: target.convert(y, x, 0.0, schedule, "x0", "epsilom"),
        lambda: target.x0_gain("epsilom", schedule, 0.0),
        lambda: target.convert_weight(1.0, 0.0, schedule, "epsilom", "x0"),
        lambda: target.variance("epsilom", schedule, 0.0, 1.0),
    ]
    for call in calls:
        with pytest.raises(InputError, match="Did you mean 'epsilon'"):
            call()
