"""Weight tables: reading between rows, exactness of rules, normalisation, and what trainers ask of them."""

from __future__ import annotations

import dataclasses
import math
import warnings
from importlib import metadata
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.weights import RULES, WeightSource, WeightTable, evaluate, rule


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table(weight: tuple[float, ...] = (1.0, 4.0, 2.0), **more: object) -> WeightTable:
    return WeightTable(tensor(-2.0, 0.0, 1.0), tensor(*weight), "v", **more)  # type: ignore[arg-type]


def close(left: torch.Tensor, right: torch.Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(left, right, rtol=tolerance, atol=0.0)


def test_rows_are_read_exactly_and_between_them_ln_w_is_a_straight_line() -> None:
    assert table()(tensor(-2.0, 0.0, 1.0)).tolist() == [1.0, 4.0, 2.0]
    close(table()(tensor(-1.0, 0.5)), tensor(2.0, math.sqrt(8.0)))
    close(table()(tensor(-1.5)), tensor(math.sqrt(2.0)))


def test_beyond_the_grid_the_end_weights_go_on() -> None:
    assert table()(tensor(-math.inf, -50.0, 50.0, math.inf)).tolist() == [1.0, 1.0, 2.0, 2.0]


def test_towards_a_zero_the_weight_itself_is_a_straight_line() -> None:
    zero_end = table((0.0, 4.0, 0.0))
    close(zero_end(tensor(-1.0, 0.25)), tensor(2.0, 3.0))
    assert zero_end(tensor(-2.0, 1.0, -9.0)).tolist() == [0.0, 0.0, 0.0]


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.floats(-30, 30), st.floats(1e-9, 1e9)), min_size=2, max_size=9, unique_by=lambda r: r[0]
    ),
    at=st.floats(-40, 40),
)
def test_a_reading_stays_between_its_two_rows(rows: list[tuple[float, float]], at: float) -> None:
    rows = sorted(rows)
    grid, weight = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    read = WeightTable(grid, weight, "x0")
    assert read(grid).tolist() == weight.tolist()
    inside = min(max(at, rows[0][0]), rows[-1][0])
    near = [w for row in pairwise(rows) if row[0][0] <= inside <= row[1][0] for _, w in row]
    assert min(near) * (1 - 1e-12) <= read(at).item() <= max(near) * (1 + 1e-12)


def test_shape_dtype_and_scalars_follow_the_input() -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        read = table()(torch.zeros(2, 3, dtype=dtype))
        assert read.dtype == dtype and read.shape == (2, 3)
        assert rule("min_snr", "v")(torch.zeros(4, dtype=dtype)).dtype == dtype
    assert table()(0.0).item() == 4.0 and table()(0.0).dtype == torch.float64
    assert table()(torch.zeros(0)).shape == (0,)
    assert table()(torch.zeros(6).reshape(2, 3).T).shape == (3, 2)


def test_a_table_keeps_its_own_copy_of_the_columns() -> None:
    weight = tensor(1.0, 4.0, 2.0)
    made = WeightTable(tensor(-2.0, 0.0, 1.0), weight, "v")
    weight[1] = 99.0
    assert made(0.0).item() == 4.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.target = "x0"  # type: ignore[misc]


def test_a_rule_is_exact_between_and_beyond_the_rows() -> None:
    path = schedules.cosine()
    for name in RULES:
        made = rule(name, "v", path)
        level = tensor(-33.3, -7.77, 0.123, 8.1, 47.0)
        raw = evaluate(name, "v", level, path)
        ratio = made(level) / raw
        close(
            ratio,
            torch.full_like(ratio, made(tensor(0.3)).item() / evaluate(name, "v", 0.3, path).item()),
            1e-11,
        )
    assert rule("min_snr", "epsilon")(-math.inf).item() == 1.0
    assert rule("min_snr", "v")(-math.inf).item() == 0.0


def test_a_rule_without_a_schedule_keeps_its_own_scale() -> None:
    made = rule("min_snr", "v", gamma=3.0)
    close(made(tensor(-1.0, 2.0)), evaluate("min_snr", "v", tensor(-1.0, 2.0), gamma=3.0))
    assert made.name == "min_snr(gamma=3)" and "normalised" not in made.meta
    assert made.meta["versions"]["ntkdiag"] == metadata.version("ntkdiag")
    kept = rule("min_snr", "v", schedules.cosine(), normalise=False)
    close(kept(tensor(0.7)), evaluate("min_snr", "v", tensor(0.7)))


def test_names_say_every_setting_even_a_zero() -> None:
    assert rule("p2", "epsilon", k=0, gamma=0.5, clip=9).name == "p2(k=0, gamma=0.5, clip=9)"
    assert rule("debias", "v").name == "debias"


@pytest.mark.parametrize("name", ["linear_log_snr", "linear_beta", "cosine", "flow", "edm"])
def test_normalised_weights_have_mean_one_over_what_training_draws(name: str) -> None:
    path = schedules.named(name)
    draws = path.sample(200_000, torch.Generator().manual_seed(1))
    for target in ("epsilon", "x0", "v"):
        drawn = rule("min_snr", target, path)(draws).mean().item()
        assert drawn == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("rule_name", "path", "mean"),
    [
        # Uniform log-SNR on [−10, 10]: ∫ e^{−λ/2}/20 = (e⁵ − e⁻⁵)/10.
        ("debias", schedules.linear_log_snr(), (math.exp(5) - math.exp(-5)) / 10),
        # λ ~ N(2.4, 2.4²): E e^{−λ/2} = exp(−1.2 + 0.72).
        ("debias", schedules.edm(), math.exp(-1.2 + 0.72)),
        # The same for e^{−λ}, which weighs the far tail: 1 + exp(−2.4 + 2.88).
        ("constant_v", schedules.edm(), 1 + math.exp(-2.4 + 2.88)),
        ("constant_epsilon", schedules.cosine(), 1.0),
    ],
)
def test_the_mean_is_the_analytic_one(rule_name: str, path: schedules.Schedule, mean: float) -> None:
    assert rule(rule_name, "epsilon").mean_under(path) == pytest.approx(mean, rel=1e-6)


def test_the_mean_of_a_kinked_rule_and_of_a_measured_table() -> None:
    # min(1, γ/SNR) with λ uniform on [−10, 10] and b = ln γ: (b + 10 + 1 − e^{b−10})/20.
    bend = math.log(5)
    expected = (bend + 11 - math.exp(bend - 10)) / 20
    assert rule("min_snr", "epsilon").mean_under(schedules.linear_log_snr()) == pytest.approx(
        expected, rel=1e-5
    )
    # A straight ln w from 1 to e² over [−1, 1], constant beyond: (9 + (e² − 1) + 9e²)/20.
    ramp = WeightTable(tensor(-1.0, 1.0), tensor(1.0, math.e**2), "v")
    exact = (9 + (math.e**2 - 1) + 9 * math.e**2) / 20
    assert ramp.mean_under(schedules.linear_log_snr()) == pytest.approx(exact, rel=1e-5)


def test_the_mean_over_steps_counts_steps_and_takes_zero_terminal_snr() -> None:
    path = schedules.from_table([2.0, 0.0, -1.0, -math.inf])
    weight = evaluate("min_snr", "v", tensor(2.0, 0.0, -1.0, -math.inf))
    assert rule("min_snr", "v").mean_under(path) == pytest.approx(weight.mean().item(), rel=1e-14)
    close(rule("min_snr", "v", path).to_steps(path), weight / weight.mean())
    with pytest.raises(InputError, match=r"rule 'debias' on epsilon: expected a finite weight.*clip="):
        rule("debias", "epsilon", path)
    assert rule("debias", "epsilon", path, clip=10.0).to_steps(path).mean().item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "target"), [("constant_v", "epsilon"), ("debias", "epsilon"), ("constant_epsilon", "x0")]
)
def test_an_infinite_mean_is_refused_not_cut_off(name: str, target: str) -> None:
    with pytest.raises(
        InputError, match=r"under schedule 'cosine': expected a finite mean.*clip=.*normalise=False"
    ):
        rule(name, target, schedules.cosine())
    assert rule(name, target, schedules.cosine(), clip=1e3).mean_under(schedules.cosine()) == pytest.approx(
        1.0
    )


def test_normalising_scales_intervals_alike_and_is_on_record() -> None:
    path = schedules.linear_log_snr()
    made = table(low=tensor(0.5, 3.0, 1.0), high=tensor(2.0, 5.0, 2.0), meta={"kept": 1}).normalised(path)
    assert made.mean_under(path) == pytest.approx(1.0, rel=1e-12)
    assert made.low is not None and made.high is not None
    close(made.low / made.weight, tensor(0.5, 0.75, 0.5))
    close(made.high / made.weight, tensor(2.0, 1.25, 1.0))
    assert made.meta["kept"] == 1
    assert made.meta["normalised"]["schedule"] == path.describe()
    assert made.meta["normalised"]["mean_before"] == pytest.approx(table().mean_under(path))
    close(made.normalised(path).weight, made.weight)


def test_normalising_over_levels_without_weight_is_refused() -> None:
    empty = WeightTable(tensor(-30.0, -29.0, -28.0), tensor(1.0, 0.0, 0.0), "v")
    with pytest.raises(InputError, match="some weight where 'linear_log_snr' samples; got mean 0"):
        empty.normalised(schedules.linear_log_snr())


def test_timesteps_of_a_schedule() -> None:
    path = schedules.linear_beta()
    made = rule("min_snr", "epsilon", path)
    steps = torch.tensor([0, 17, 999])
    expected = made(path.log_snr(steps.double()))
    assert made.from_timesteps(path, steps).dtype == torch.float32
    close(made.from_timesteps(path, steps), expected.float(), 1e-6)
    close(made.from_timesteps(path, steps.double()), expected)
    close(made.to_steps(path)[steps], expected)
    assert made.to_steps(path).shape == (1000,)
    continuous = schedules.flow()
    close(made.from_timesteps(continuous, tensor(0.25)), made(tensor(2 * math.log(3.0))))


@pytest.mark.parametrize("steps", [[1000], [-1], [0.5, math.nan]])
def test_timesteps_a_schedule_does_not_have_are_refused(steps: list[float]) -> None:
    with pytest.raises(
        InputError, match=r"timesteps for schedule 'linear_beta': expected times from 0 to 999"
    ):
        rule("min_snr", "v").from_timesteps(schedules.linear_beta(), torch.tensor(steps))


def test_timesteps_of_diffusers_like_schedulers() -> None:
    made = rule("min_snr", "v")
    alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    ddpm = SimpleNamespace(alphas_cumprod=alphas)
    snr = alphas / (1 - alphas)
    steps = torch.tensor([3, 500])
    close(made.from_timesteps(ddpm, steps.double()), evaluate("min_snr", "v", snr[steps].log()), 1e-9)
    # Flow-matching schedulers count time in thousandths, EDM schedulers in ln(s)/4.
    for config in ({"num_train_timesteps": 500}, SimpleNamespace(num_train_timesteps=500)):
        flow = SimpleNamespace(sigmas=torch.linspace(1, 0.002, 500), config=config)
        close(made.from_timesteps(flow, tensor(125.0)), made(tensor(2 * math.log(3.0))))
    edm = SimpleNamespace(config={"sigma_data": 0.5})
    close(made.from_timesteps(edm, tensor(math.log(2.0) / 4)), made.from_sigmas(tensor(2.0)))
    with pytest.raises(InputError, match="scheduler"):
        made.from_timesteps(object(), steps)


def test_times_and_the_time_of_the_schedule_are_in_one_unit() -> None:
    flow = SimpleNamespace(sigmas=torch.linspace(1, 0.001, 1000), config={"shift": 3.0})
    levels = tensor(-2.0, -0.7, 0.0, 0.9)
    time = schedules.from_diffusers(flow).time(levels)
    assert time.max() > 500
    close(table().from_timesteps(flow, time), table()(levels), 1e-9)
    close(table().from_timesteps(schedules.from_diffusers(flow), time), table()(levels), 1e-9)


def test_times_in_another_unit_are_refused_and_single_ones_beyond_the_rows_are_said() -> None:
    """0.9 of 1000 is log-SNR 14: each such time would be given the weight of the last row."""
    flow = SimpleNamespace(sigmas=torch.linspace(1, 0.001, 1000), config={"shift": 3.0})
    with pytest.raises(
        InputError, match=r"rows, log-SNR -3 to 1\.5; got log-SNR 14\.02 to 18\.42 and no time"
    ):
        table().from_timesteps(flow, tensor(0.9, 0.5, 0.1))
    with pytest.warns(UserWarning, match="beyond the rows of weight table 'measured', log-SNR -3 to 1.5"):
        assert table().from_timesteps(flow, tensor(0.9)).item() == 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table().from_timesteps(flow, tensor(0.9, 500.0, 0.1))[1].item() == 4.0  # one lies within
        assert table().from_timesteps(flow, tensor()).numel() == 0
        assert rule("min_snr", "v").from_timesteps(flow, tensor(0.9, 0.5, 0.1)).unique().numel() == 3


def test_sigmas_are_noise_levels_of_unit_signal() -> None:
    made = rule("constant_epsilon", "x0")
    close(made.from_sigmas(tensor(0.5, 2.0)), tensor(4.0, 0.25))
    assert made.from_sigmas(torch.ones(3)).dtype == torch.float32
    assert rule("min_snr", "x0").from_sigmas(0.0).item() == pytest.approx(5.0)
    for bad in (-1.0, math.nan):
        with pytest.raises(InputError, match="noise levels ≥ 0"):
            made.from_sigmas(bad)


def test_steps_need_a_discrete_schedule() -> None:
    with pytest.raises(InputError, match=r"discrete schedule.*got 'cosine', which is continuous"):
        rule("min_snr", "v").to_steps(schedules.cosine())


def test_a_table_is_a_weight_source_that_knows_its_own_checkpoint() -> None:
    made = table()
    assert isinstance(made, WeightSource)
    made.after_step(500)
    made.load_state_dict(table().state_dict())
    for other in (table((1.0, 4.0, 2.1)), dataclasses.replace(table(), target="x0"), rule("min_snr", "v")):
        with pytest.raises(InputError, match="the weights the checkpoint was trained with"):
            made.load_state_dict(other.state_dict())
    with pytest.raises(InputError):
        made.load_state_dict({})


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"log_snr": [0.0], "weight": [1.0]}, "expected at least 2 rows; got 1"),
        ({"log_snr": [], "weight": []}, "expected at least 2 rows; got 0"),
        ({"log_snr": [0.0, 1.0], "weight": [1.0]}, r"weight: expected 2 values, as log_snr has; got \(1,\)"),
        ({"log_snr": [[0.0, 1.0]] * 2, "weight": [1.0] * 2}, r"log_snr: expected 2 values"),
        (
            {"log_snr": [0.0, 0.0], "weight": [1.0, 1.0]},
            r"row 2, log_snr: expected a larger log-SNR .*; got 0\.0",
        ),
        ({"log_snr": [0.0, 2.0, 1.0], "weight": [1.0] * 3}, r"row 3, log_snr: expected a larger"),
        (
            {"log_snr": [0.0, math.inf], "weight": [1.0] * 2},
            r"row 2, log_snr: expected a finite number; got inf",
        ),
        (
            {"log_snr": [0.0, 1.0], "weight": [1.0, math.nan]},
            r"row 2, weight: expected a finite number; got nan",
        ),
        (
            {"log_snr": [0.0, 1.0], "weight": [-1e-9, 1.0]},
            r"row 1, weight: expected a number ≥ 0; got -1e-09",
        ),
        (
            {"log_snr": [0.0, 1.0], "weight": [0.0, 0.0]},
            "at least one positive weight; got zero in every row",
        ),
        (
            {"log_snr": [0.0, 1.0], "weight": [1.0, 1.0], "low": [1.0, 1.0]},
            "both of low and high, or neither",
        ),
        (
            {"log_snr": [0.0, 1.0], "weight": [1.0, 1.0], "low": [0.0, 2.0], "high": [1.0, 1.0]},
            "row 2, low: expected low to be at most high",
        ),
    ],
)
def test_unsound_columns_are_refused_by_row(columns: dict[str, list[float]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        WeightTable(**{k: torch.tensor(v, dtype=torch.float64) for k, v in columns.items()}, target="v")


def test_an_interval_may_have_no_width() -> None:
    point = tensor(1.0, 4.0, 2.0)
    assert table(low=point, high=point).columns["low"].tolist() == [1.0, 4.0, 2.0]


def test_unsound_names_targets_and_inputs_are_refused() -> None:
    for name in ("", "two\nlines", " padded "):
        with pytest.raises(InputError, match="one line of text"):
            table(name=name)
    with pytest.raises(InputError, match="target: expected one of"):
        WeightTable(tensor(0.0, 1.0), tensor(1.0, 1.0), "velocity")
    assert WeightTable(tensor(0.0, 1.0), tensor(1.0, 1.0), "eps").target == "epsilon"
    for made in (table(), rule("min_snr", "v")):
        with pytest.raises(InputError, match=r"log_snr for weight table.*got NaN"):
            made(tensor(0.0, math.nan))


def test_weights_that_are_not_those_of_the_rule_are_refused() -> None:
    made = rule("min_snr", "v")
    weight = made.weight.clone()
    weight[4] *= 1 + 1e-6
    with pytest.raises(
        InputError, match=r"row 5, weight: expected .*rule gives; got .*edited by hand\. Remove the rule"
    ):
        dataclasses.replace(made, weight=weight)


@pytest.mark.parametrize(
    "path",
    [
        schedules.linear_log_snr(-40, -30),
        schedules.linear_log_snr(-3, -2.9),
        schedules.from_table([3, 1, -math.inf]),
    ],
)
def test_the_grid_of_a_rule_covers_the_support(path: schedules.Schedule) -> None:
    grid = rule("constant_v", "v", path).log_snr
    low, high = path.support
    assert grid[0].item() == pytest.approx(max(low, -20.0) if math.isinf(low) else low)
    assert grid[-1].item() == pytest.approx(high)
    assert (grid.diff() > 0).all() and grid.diff().max() <= 0.5


def test_a_table_says_what_it_is() -> None:
    assert repr(rule("min_snr", "v")) == "WeightTable('min_snr(gamma=5)' on v, 81 rows, log-SNR -20 to 20)"
