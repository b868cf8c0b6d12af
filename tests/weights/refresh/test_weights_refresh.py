"""The refresher: how far and how fast weights move, what happens when a measurement fails, and resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.weights import Refresher, WeightSource, WeightTable, rule

PATH = schedules.linear_log_snr(-6, 6)
GRID = torch.linspace(-6, 6, 7, dtype=torch.float64)
SLOPE = torch.exp(GRID / 6)


def refresher(score: Callable[[], object] | None = None, **more: object) -> Refresher:
    settings = {"every": 10, "half_life": 0.0, "max_change": 1e6, **more}
    return Refresher(score or (lambda: (GRID, SLOPE)), "v", PATH, **settings)  # type: ignore[arg-type]


def close(left: torch.Tensor, right: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(left, right, rtol=tolerance, atol=0.0)


def aim(score: torch.Tensor = SLOPE) -> torch.Tensor:
    return WeightTable(GRID, score, "v").normalised(PATH).weight


def test_it_is_a_weight_source_and_starts_constant() -> None:
    source = refresher()
    assert isinstance(source, WeightSource) and source.target == "v"
    assert source(torch.tensor([-9.0, 0.0, 30.0])).tolist() == [1.0, 1.0, 1.0]
    assert source(torch.zeros(2)).dtype == torch.float32


def test_it_measures_every_so_many_steps_and_not_at_others() -> None:
    calls: list[int] = []
    source = refresher(lambda: calls.append(1) or (GRID, SLOPE))  # type: ignore[func-returns-value]
    for step in range(1, 36):
        source.after_step(step)
    assert len(calls) == 3
    assert [record.step for record in source.history] == [10, 20, 30]


def test_without_smoothing_the_weights_are_the_measured_ones_at_mean_one() -> None:
    source = refresher()
    source.after_step(10)
    close(source.table.weight, aim())
    assert source.table.mean_under(PATH) == pytest.approx(1.0, rel=1e-12)
    assert source.history[0].accepted and source.history[0].weight == tuple(source.table.weight.tolist())
    assert source.history[0].score == tuple(SLOPE.tolist())


@pytest.mark.parametrize(("half_life", "refreshes"), [(1.0, 1), (3.0, 3)])
def test_after_a_half_life_half_of_ln_w_is_new(half_life: float, refreshes: int) -> None:
    # ln w is linear in log-SNR throughout, so its slope halves the distance to the measured 1/6.
    source = refresher(half_life=half_life)
    for step in range(refreshes):
        source.refresh(step)
    slope = source.table.weight.log().diff() / GRID.diff()
    close(slope, torch.full_like(slope, 1 / 12))


def test_power_and_floor_shape_the_weights() -> None:
    source = refresher(power=2.0)
    source.refresh(1)
    close(source.table.weight, aim(SLOPE**2))
    low = torch.tensor([-3.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    source = refresher(lambda: (GRID, low), floor=0.1)
    source.refresh(1)
    expected = torch.tensor([0.1, 0.1, 1.4, 1.4, 1.4, 1.4, 1.4], dtype=torch.float64)
    close(source.table.weight / source.table.weight[-1], expected / 1.4)


def test_no_weight_changes_by_more_than_max_change_and_the_aim_is_reached_in_time() -> None:
    steep = torch.exp(GRID)
    source = refresher(lambda: (GRID, steep), max_change=1.5, floor=1e-6)
    for step in range(60):
        before = source.table(GRID)
        source.refresh(step)
        change = (source.table(GRID) / before).log().abs().max().item()
        assert change <= math.log(1.5) * (1 + 1e-9)
        assert source.table.mean_under(PATH) == pytest.approx(1.0, rel=1e-9)
    close(source.table.weight, aim((steep / steep.mean()).clamp(min=1e-6)), 1e-6)


def test_it_starts_from_the_weights_it_is_given() -> None:
    initial = rule("min_snr", "v")
    source = refresher(initial=initial, half_life=1.0)
    level = torch.tensor([-4.0, 0.3], dtype=torch.float64)
    close(source(level), initial.normalised(PATH)(level))
    source.refresh(1)
    expected = 0.5 * (aim().log() + initial.normalised(PATH)(GRID).log())
    close(source.table.weight.log().diff(), expected.diff())


def test_a_zero_in_the_initial_weights_does_not_stay_for_ever() -> None:
    start = WeightTable(GRID, torch.tensor([0.0, 1, 1, 1, 1, 1, 1], dtype=torch.float64), "v")
    source = refresher(initial=start, max_change=2.0)
    for step in range(40):
        source.refresh(step)
    close(source.table.weight, aim(), 1e-6)


def failing() -> tuple[torch.Tensor, torch.Tensor]:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (failing, "RuntimeError: out of memory"),
        (lambda: (GRID, SLOPE * math.nan), "MeasurementError: score nan at log-SNR -6"),
        (lambda: (GRID, torch.where(GRID == 2, math.inf, SLOPE)), "MeasurementError: score inf at log-SNR 2"),
        (lambda: (GRID, SLOPE[:-1]), "shapes (7,) and (6,)"),
        (lambda: (GRID.flip(0), SLOPE), "row 2, log_snr: expected a larger log-SNR"),
        (lambda: (GRID * math.nan, SLOPE), "row 1, log_snr: expected a finite number"),
        (lambda: (GRID, SLOPE * 0), "positive value in at least one bucket"),
        (lambda: (GRID[:1], SLOPE[:1]), "at least 2 rows"),
        (lambda: None, "TypeError"),
    ],
)
def test_a_failed_measurement_changes_nothing_and_is_on_record(
    score: Callable[[], object], reason: str
) -> None:
    answers = iter([lambda: (GRID, SLOPE), score, lambda: (GRID, 1 / SLOPE)])
    source = refresher(lambda: next(answers)())
    source.after_step(10)
    before = source.table
    source.after_step(20)
    assert source.table is before
    record = source.history[-1]
    assert (record.step, record.accepted, record.weight) == (20, False, ())
    assert reason in record.reason
    source.after_step(30)
    close(source.table.weight, aim(1 / SLOPE))


def test_stopping_by_hand_is_not_a_failed_measurement() -> None:
    def stop() -> tuple[torch.Tensor, torch.Tensor]:
        raise KeyboardInterrupt

    source = refresher(stop)
    with pytest.raises(KeyboardInterrupt):
        source.after_step(10)
    assert source.history == []


def noisy(seed: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Scores that depend on nothing but how often they were asked for, with one failure among them."""
    calls = [0]

    def score() -> tuple[torch.Tensor, torch.Tensor]:
        calls[0] += 1
        if calls[0] == 3:
            return GRID, SLOPE * math.nan
        draw = torch.Generator().manual_seed(seed + calls[0])
        return GRID, torch.rand(7, generator=draw, dtype=torch.float64) + 0.1

    return score


@pytest.mark.parametrize("stop_at", [0, 5, 15, 35, 40])
def test_a_resumed_refresher_goes_on_identically(stop_at: int) -> None:
    settings = {"half_life": 2.0, "max_change": 1.3, "initial": rule("min_snr", "v")}
    whole = refresher(noisy(0), **settings)
    for step in range(1, 71):
        whole.after_step(step)

    score = noisy(0)
    first = refresher(score, **settings)
    for step in range(1, stop_at + 1):
        first.after_step(step)
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second = refresher(score, **settings)
    second.load_state_dict(state)
    level = torch.linspace(-8, 8, 33, dtype=torch.float64)
    assert torch.equal(second(level), first(level))
    for step in range(stop_at, 71):  # the last step once more: it must not be measured twice
        second.after_step(step)
    assert torch.equal(second(level), whole(level))
    assert repr(second.history) == repr(whole.history)


def test_a_state_of_other_settings_or_other_weights_is_refused() -> None:
    state = refresher().state_dict()
    for more in ({"every": 11}, {"half_life": 1.0}, {"max_change": 3.0}, {"power": 2.0}, {"floor": 0.2}):
        with pytest.raises(InputError, match="refresher in the checkpoint: expected the settings"):
            refresher(**more).load_state_dict(state)
    with pytest.raises(InputError, match="the weights the checkpoint was trained with"):
        refresher(initial=rule("min_snr", "v")).load_state_dict(state)
    for broken in ({}, {"settings": state["settings"]}):
        with pytest.raises(InputError, match="refresher in the checkpoint"):
            refresher().load_state_dict(broken)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("every", 0),
        ("every", 2.5),
        ("half_life", -1.0),
        ("half_life", math.nan),
        ("max_change", 1.0),
        ("power", -1.0),
        ("floor", 0.0),
        ("floor", 2.0),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting}: expected a"):
        refresher(**{setting: value})


def test_initial_weights_of_another_target_are_refused() -> None:
    with pytest.raises(InputError, match="initial weights: expected weights for v; got x0"):
        refresher(initial=rule("min_snr", "x0"))


def test_measurements_in_single_precision_or_with_gradients_are_taken() -> None:
    source = refresher(lambda: (GRID.float(), SLOPE.float().requires_grad_()))
    source.refresh(1)
    close(source.table.weight, aim(), 1e-6)
    assert not source.table.weight.requires_grad


def test_the_grid_may_change_between_refreshes() -> None:
    fine = torch.linspace(-6, 6, 25, dtype=torch.float64)
    answers = iter([(GRID, SLOPE), (fine, torch.exp(fine / 6))])
    source = refresher(lambda: next(answers))
    source.refresh(1)
    source.refresh(2)
    close(source(GRID), aim(), 1e-5)
    assert len(source.table.weight) == 25
