"""The refresher's time budget and its monitor, on a clock that only moves when the test says so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.weights import Refresher
from ntkdiag.weights.refresh.time_budget import TimeBudget

PATH = schedules.linear_log_snr(-6, 6)
GRID = torch.linspace(-6, 6, 5, dtype=torch.float64)


class World:
    """A training run: steps and measurements take the time they are told to, and nothing else does."""

    def __init__(self, step_time: float = 1.0, refresh_time: float = 8.0, look_time: float = 0.0) -> None:
        self.now, self.step_time, self.refresh_time, self.look_time = (
            100.0,
            step_time,
            refresh_time,
            look_time,
        )
        self.measured: list[int] = []
        self.step = 0
        self.shown = [1.0, 1.0]

    def clock(self) -> float:
        return self.now

    def score(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.now += self.refresh_time
        self.measured.append(self.step)
        return GRID, torch.exp(GRID * self.step / 1000)

    def monitor(self) -> torch.Tensor:
        self.now += self.look_time
        return torch.tensor(self.shown)

    def refresher(self, **more: object) -> Refresher:
        settings = {"every": 10, "clock": self.clock, **more}
        return Refresher(self.score, "v", PATH, **settings)  # type: ignore[arg-type]

    def train(self, source: Refresher, until: int) -> None:
        while self.step < until:
            self.now += self.step_time
            self.step += 1
            source.after_step(self.step)


def test_without_a_budget_no_time_is_kept_and_the_clock_is_never_read() -> None:
    world = World()
    source = world.refresher(clock=lambda: pytest.fail("the clock was read"))
    world.train(source, 40)
    assert world.measured == [10, 20, 30, 40]
    assert all(record.cost == 0.0 for record in source.history)


def test_a_refresh_that_would_exceed_the_budget_is_skipped_and_on_record() -> None:
    # A refresh takes 8 steps. Under 20% the second, which brings the sum to 16, must wait for step 80, the third
    # for step 120.
    world = World()
    source = world.refresher(budget=0.2)
    world.train(source, 130)
    assert world.measured == [10, 80, 120]
    assert [record.step for record in source.history] == list(range(10, 131, 10))
    skipped = source.history[1]
    assert not skipped.accepted and skipped.cost == 0.0 and skipped.weight == ()
    assert skipped.reason == "skipped: refreshes would have taken 80.00% of training, the budget is 20.00%"
    assert [record.cost for record in source.history if record.accepted] == pytest.approx([8.0, 8.0, 8.0])


@pytest.mark.parametrize("budget", [0.03, 0.1, 0.5])
@pytest.mark.parametrize("cost", [0.5, 3.0, 40.0])
def test_after_the_first_the_share_of_time_stays_within_the_budget(budget: float, cost: float) -> None:
    world = World(step_time=0.02, refresh_time=0.02 * cost)
    source = world.refresher(budget=budget)
    world.train(source, 1500)
    for count, step in enumerate(world.measured[1:], start=2):
        assert count * cost <= budget * step * (1 + 1e-9)
    # Nor is it wasteful: what is left at the end would not have paid for another.
    assert (len(world.measured) + 1) * cost > budget * (world.step - 10) or len(world.measured) == 150


def test_refreshes_do_not_count_as_training_time() -> None:
    world = World(step_time=2.0, refresh_time=500.0)
    source = world.refresher(budget=0.9)
    world.train(source, 2000)
    # 500 s are 250 steps however many refreshes there have been.
    assert {round(record.cost, 6) for record in source.history if record.accepted} == {250.0}


def test_weights_are_kept_when_a_refresh_is_skipped() -> None:
    world = World(refresh_time=1000.0)
    source = world.refresher(budget=0.1)
    world.train(source, 10)
    before = source.table
    world.train(source, 60)
    assert source.table is before and len(source.history) == 6


def test_a_failed_measurement_costs_too() -> None:
    world = World()

    def failing() -> tuple[torch.Tensor, torch.Tensor]:
        world.now += 8.0
        raise RuntimeError("no")

    source = Refresher(failing, "v", PATH, every=10, budget=0.2, clock=world.clock)
    world.train(source, 70)
    assert [record.cost for record in source.history] == pytest.approx([8.0] + [0.0] * 6)


@pytest.mark.parametrize("stop_at", [7, 10, 35, 80, 81, 119])
def test_a_resumed_run_decides_as_the_one_that_went_on(stop_at: int) -> None:
    whole = World()
    source = whole.refresher(budget=0.2, half_life=2.0)
    whole.train(source, 200)

    world = World()
    first = world.refresher(budget=0.2, half_life=2.0)
    world.train(first, stop_at)
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    world.now += 1e6  # the machine was off
    second = world.refresher(budget=0.2, half_life=2.0)
    second.load_state_dict(state)
    world.train(second, 200)
    assert world.measured == whole.measured
    assert repr(second.history) == repr(source.history)
    assert torch.equal(second.table.weight, source.table.weight)


def test_a_step_that_is_reported_twice_is_counted_once() -> None:
    world = World()
    budget = TimeBudget(0.5, world.clock)
    for step in (1, 2, 2, 3):
        budget.tick(step)
        world.now += 1.0
    # From 1 to 3, two steps in three seconds: the second report of step 2 is part of step 3.
    assert budget.state() == {"seconds": 3.0, "steps": 2, "charged": 0.0}


def test_steps_may_be_reported_in_strides() -> None:
    world = World()
    budget = TimeBudget(0.5, world.clock)
    for step in (10, 20, 30):
        budget.tick(step)
        world.now += 10.0
    began = budget.begin()
    world.now += 4.0
    assert budget.end(began) == pytest.approx(4.0)


def test_before_any_step_is_timed_a_cost_is_unknown_and_taken_as_none() -> None:
    world = World()
    source = world.refresher(budget=0.1, every=1)
    world.train(source, 1)
    assert source.history[0].cost == 0.0 and source.history[0].accepted


@pytest.mark.parametrize("budget", [0.0, 1.0, -0.1, math.nan])
def test_a_budget_out_of_range_is_refused(budget: float) -> None:
    with pytest.raises(InputError, match="budget: expected a share of training time between 0 and 1"):
        World().refresher(budget=budget)


def watched(world: World, **more: object) -> Refresher:
    return world.refresher(every=1000, monitor=world.monitor, check_every=10, moved=0.2, **more)


def test_a_refresh_comes_early_when_the_monitor_has_moved() -> None:
    world = World()
    source = watched(world)
    world.train(source, 45)
    assert source.history == []
    world.shown = [1.0, 1.25]  # ‖change‖ = 0.25 of √2: 18%
    world.train(source, 55)
    assert source.history == []
    world.shown = [1.0, 1.3]  # 21%
    world.train(source, 65)
    assert [(record.step, record.cause) for record in source.history] == [(60, "moved")]
    # What it showed then is what it is compared with now.
    world.train(source, 95)
    assert len(source.history) == 1
    world.shown = [0.5, 0.9]
    world.train(source, 105)
    assert [record.step for record in source.history] == [60, 100]


def test_regular_refreshes_go_on_and_reset_what_the_monitor_is_compared_with() -> None:
    world = World()
    source = world.refresher(every=50, monitor=world.monitor, check_every=10, moved=0.2)
    world.train(source, 45)
    world.shown = [1.19, 1.19]
    world.train(source, 55)
    world.shown = [1.38, 1.38]  # 38% of the first look, 16% of the last refresh
    world.train(source, 95)
    assert [(record.step, record.cause) for record in source.history] == [(50, "every")]
    world.train(source, 100)
    assert [record.cause for record in source.history] == ["every", "every"]


def test_the_budget_holds_for_early_refreshes_and_pays_for_looks() -> None:
    world = World(refresh_time=20.0, look_time=0.5)
    source = watched(world, budget=0.25)
    for stage in range(1, 40):
        world.shown = [float(stage % 2), 1.0]
        world.train(source, stage * 10)
    looks = range(10, 391, 10)
    refreshed = [record.step for record in source.history if record.accepted]
    assert refreshed and len(source.history) > len(refreshed)
    for count, step in enumerate(refreshed[1:], start=2):
        # A refresh looks as well.
        spent = count * 20.5 + 0.5 * sum(look <= step for look in looks)
        assert spent <= 0.25 * step + 1e-6


@pytest.mark.parametrize(
    ("monitor", "reason"),
    [
        (lambda: 1 / 0, "monitor: ZeroDivisionError: division by zero"),
        (lambda: torch.tensor([math.nan]), "monitor: a number that is not finite"),
        (lambda: "text", "monitor: TypeError"),
    ],
)
def test_a_monitor_that_fails_is_on_record_and_changes_nothing(monitor: Callable, reason: str) -> None:
    world = World()
    source = world.refresher(every=1000, monitor=monitor, check_every=10)
    world.train(source, 10)
    (record,) = source.history
    assert (record.step, record.accepted, record.cause) == (10, False, "moved")
    assert record.reason.startswith(reason) and world.measured == []


def test_a_monitor_whose_shape_changes_starts_over() -> None:
    world = World()
    source = watched(world)
    world.train(source, 15)
    world.shown = [9.0, 9.0, 9.0]
    world.train(source, 25)
    assert source.history == []


@pytest.mark.parametrize("stop_at", [15, 60, 63])
def test_the_monitors_memory_is_resumed(stop_at: int) -> None:
    def run(until: int, source: Refresher, world: World) -> None:
        for stage in range(world.step, until):
            world.shown = [1.0 + 0.01 * stage, 1.0]
            world.train(source, stage + 1)

    whole = World()
    source = watched(whole)
    run(150, source, whole)
    world = World()
    first = watched(world)
    run(stop_at, first, world)
    second = watched(world)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    run(150, second, world)
    assert world.measured == whole.measured and len(whole.measured) >= 2
    assert repr(second.history) == repr(source.history)


def test_other_settings_of_monitor_and_budget_are_refused_on_resume() -> None:
    state = World().refresher().state_dict()
    for more in ({"budget": 0.1}, {"moved": 0.3}, {"check_every": 7}, {"monitor": World().monitor}):
        with pytest.raises(InputError, match="refresher in the checkpoint: expected the settings"):
            World().refresher(**more).load_state_dict(state)


@pytest.mark.parametrize(("setting", "value"), [("moved", 0.0), ("moved", math.nan), ("check_every", 0)])
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting}: expected a"):
        World().refresher(**{setting: value})
