"""Refresher: weights that follow the training, measured again every few hundred steps.

The measurement itself is handed in as a function, so this file knows nothing of kernels. A refresh moves
ln w a step towards the newly measured weights and never far at once; a measurement that fails leaves the
weights as they are and is written into the history. Where training runs on several processes, all of them
measure, what they measured is averaged, and all have the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError, MeasurementError, require_positive_int
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import target_name
from ntkdiag.weights.measured.score_to_weight import ScoreToWeight
from ntkdiag.weights.refresh import ranks
from ntkdiag.weights.refresh.drift_monitor import DriftMonitor, MonitorFunction
from ntkdiag.weights.refresh.history import Record
from ntkdiag.weights.refresh.limited_update import REFRESHED, LimitedUpdate, require_number
from ntkdiag.weights.refresh.ranks import RankMeasurement
from ntkdiag.weights.refresh.time_budget import Clock, TimeBudget
from ntkdiag.weights.tables.weight_table import WeightTable

# () → (log-SNR [n] increasing, amplitude [n] as in ntkdiag.weights.measured.from_diagnosis)
ScoreFunction = Callable[[], tuple[Tensor, Tensor]]


class Refresher:
    """A `WeightSource` whose weights are measured again during training.

    Where `torch.distributed` is initialised, `after_step` and `refresh` are to be called on every process.

    Args:
        score: Measures now: () → (log_snr [n], score [n]); the score is an amplitude ≥ 0, the weight
            grows with it. A score below zero counts as zero. Processes must agree on log_snr; their scores are
            averaged.
        target: The target whose squared error is weighted.
        schedule: The process trained on; after every refresh the mean weight under its density is 1.
        every: Steps between refreshes.
        half_life: Refreshes after which half of ln w is new; 0 takes every measurement as it is.
        max_change: > 1. On an unchanged grid no weight changes by more than this factor in one refresh.
        power, floor: See `ScoreToWeight`; the floor must be positive here, as ln w is averaged.
        initial: Weights to start from; constant if None.
        monitor: Something cheap that moves when the score would: when it has, a refresh comes early.
        check_every: Steps between two looks at the monitor.
        moved: Relative change ‖now − at the last refresh‖/‖at the last refresh‖ that calls for a refresh.
        budget: Share of training time that refreshes may take; one that would exceed it is skipped, and that
            is recorded. None: no limit, and no time is kept. See `TimeBudget`.
        clock: Seconds from any origin, for the budget.

    Attributes:
        table: The weights of now.
        history: A `Record` of every refresh and of every one that was skipped.

    Raises:
        InputError: a setting out of range, or initial weights for another target.
    """

    def __init__(
        self,
        score: ScoreFunction,
        target: str,
        schedule: Schedule,
        *,
        every: int = 500,
        half_life: float = 1.0,
        max_change: float = 2.0,
        power: float = 1.0,
        floor: float = 0.05,
        initial: WeightTable | None = None,
        monitor: MonitorFunction | None = None,
        check_every: int = 50,
        moved: float = 0.2,
        budget: float | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.target = target_name(target)
        self.schedule = schedule
        self.every = require_positive_int("every", every)
        self._moving = LimitedUpdate(half_life, max_change, ScoreToWeight(power, floor))
        self.check_every = require_positive_int("check_every", check_every)
        self.history: list[Record] = []
        self._score = score
        self._watch = DriftMonitor(monitor, require_number("moved", moved, above=0.0))
        self._budget = TimeBudget(budget, clock)
        self._initial = (initial or _constant(self.target)).normalised(schedule)
        if self._initial.target != self.target:
            raise InputError(
                "initial weights", expected=f"weights for {self.target}", got=self._initial.target
            )
        self.table = self._initial

    def __call__(self, log_snr: Tensor) -> Tensor:
        """The weights of now; see `WeightTable.__call__`."""
        return self.table(log_snr)

    def after_step(self, step: int) -> None:
        """Refresh if it is time or the monitor moved, but never twice for one step, as a resume might ask for."""
        if step <= self._last_step:
            return
        self._budget.tick(step)
        cause = "every" if step % self.every == 0 else self._early(step)
        if not cause:
            return
        objection = self._budget.objection(step, (record.cost for record in self.history))
        if objection:
            self.history.append(Record(step, False, objection, cause))
        else:
            self.refresh(step, cause)

    def refresh(self, step: int, cause: str = "asked") -> Record:
        """Measure and move the weights, whatever the step; never raises because of the measurement.

        Args:
            step: Number of training steps done, for the history.
            cause: What called for it, for the history.

        Returns:
            What happened, which is also the newest entry of `history`.
        """
        outcomes = ranks.everyone(self._guarded(self._measure))
        told: dict[str, Any] = {"cause": cause, "cost": max(outcome.cost for outcome in outcomes)}
        error = ranks.failure(outcomes)
        record = Record(step, False, error, **told) if error else self._move(step, outcomes, told)
        self.history.append(record)
        return record

    def state_dict(self) -> dict[str, Any]:
        """All that later behaviour depends on, JSON-able."""
        return {
            "settings": self._settings(),
            "initial": self._initial.state_dict(),
            "table": self.table.state_dict() if self.table is not self._initial else None,
            "history": [record.describe() for record in self.history],
            "watch": self._watch.state(),
            "time": self._budget.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the refresher that wrote `state`.

        Raises:
            InputError: it had other settings or started from other weights.
        """
        own, theirs = self._settings(), state.get("settings")
        if theirs != own:
            raise InputError(
                "refresher in the checkpoint",
                expected=f"the settings {own}",
                got=theirs,
                fix="Resume with the same settings, or start a new run.",
            )
        try:
            self._initial.load_state_dict(state["initial"])
            table = None if state["table"] is None else WeightTable(**state["table"], **REFRESHED)
            history = [Record.from_description(entry) for entry in state["history"]]
            self._watch.load(state["watch"])
            self._budget.load(state["time"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "refresher in the checkpoint", expected="a whole state", got=repr(error)
            ) from error
        self.table = self._initial if table is None else table
        self.history = history

    @property
    def _last_step(self) -> int:
        return self.history[-1].step if self.history else 0

    def _measure(self) -> tuple[tuple[float, ...], ...]:
        """Log-SNR, score and what the monitor shows, on this process."""
        log_snr, score = (torch.as_tensor(part).detach().cpu().double() for part in self._score())
        if log_snr.ndim != 1 or log_snr.shape != score.shape:
            raise MeasurementError(
                f"shapes {tuple(log_snr.shape)} and {tuple(score.shape)} of log_snr and score"
            )
        return _floats(log_snr), _floats(score), self._watch.look()

    def _move(self, step: int, outcomes: list[RankMeasurement], told: dict[str, Any]) -> Record:
        """Weights from what all processes measured."""
        try:
            log_snr, score = ranks.same(outcomes, 0), ranks.mean(outcomes, 1)
            shown = ranks.mean(outcomes, 2)
            told |= {"log_snr": _floats(log_snr), "score": _floats(score)}
            table = self._moving.step(self.table, log_snr, score, self.schedule)
        except Exception as error:
            return Record(step, False, _told(error), **told)
        self.table = table
        self._watch.refreshed(shown)
        return Record(step, True, weight=_floats(table.weight), **told)

    def _early(self, step: int) -> str:
        """ "moved" if the monitor calls for a refresh, else nothing; a monitor that fails is put on record."""
        if self._watch.monitor is None or step % self.check_every:
            return ""
        outcomes = ranks.everyone(self._guarded(lambda: (self._watch.look(),)))
        self._budget.charge(max(outcome.cost for outcome in outcomes))
        try:
            return "moved" if self._watch.moved(outcomes) else ""
        except MeasurementError as error:
            self.history.append(Record(step, False, f"monitor: {error}", "moved"))
            return ""

    def _guarded(self, measure: Callable[[], tuple[tuple[float, ...], ...]]) -> RankMeasurement:
        """What this process measures, and what it takes; any failure is an outcome too."""
        began = self._budget.begin()
        try:
            values, error = measure(), ""
        except Exception as failure:  # training goes on with the weights it has
            values, error = (), _told(failure)
        return RankMeasurement(values, error, self._budget.end(began))

    def _settings(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "schedule": self.schedule.describe(),
            "every": self.every,
            **self._moving.describe(),
            "monitored": self._watch.monitor is not None,
            "check_every": self.check_every,
            "moved": self._watch.change,
            "budget": self._budget.share,
        }


def _constant(target: str) -> WeightTable:
    ends = torch.tensor([-20.0, 20.0], dtype=torch.float64)
    return WeightTable(ends, torch.ones_like(ends), target, name="constant")


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().tolist())


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
