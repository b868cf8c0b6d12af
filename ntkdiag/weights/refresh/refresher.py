"""Refresher: weights that follow the training, measured again every few hundred steps.

The measurement is a function that the caller passes, so this module imports nothing of kernels. A refresh moves ln w
towards the newly measured weights, by a limited step; a measurement that fails leaves the weights as they are and is
written into the history. In distributed training every process measures, the measurements are averaged, and all
processes have the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError, MeasurementError, first_line, require_number, require_positive_int
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import target_name
from ntkdiag.weights.measured.score_to_weight import ScoreToWeight
from ntkdiag.weights.refresh import ranks
from ntkdiag.weights.refresh.drift_monitor import DriftMonitor, MonitorFunction
from ntkdiag.weights.refresh.history import Record
from ntkdiag.weights.refresh.limited_update import REFRESHED, LimitedUpdate
from ntkdiag.weights.refresh.ranks import RankMeasurement
from ntkdiag.weights.refresh.time_budget import Clock, TimeBudget
from ntkdiag.weights.tables.weight_table import WeightTable

# () → (log-SNR [n] increasing, amplitude [n] as in ntkdiag.weights.measured.from_diagnosis)
ScoreFunction = Callable[[], tuple[Tensor, Tensor]]


class Refresher:
    """A `WeightSource` whose weights are measured again during training.

    Where `torch.distributed` is initialised, `after_step` and `refresh` are to be called on every process.

    Args:
        score: Measures the network as it is now: () → (log_snr [n], score [n]); the score is an amplitude
            ≥ 0 with which the weight grows; below zero it counts as zero. Processes must agree on log_snr; their
            scores are averaged.
        target: The target whose squared error is weighted.
        schedule: The process trained on; after every refresh the mean weight under its density is 1.
        every: Steps between refreshes.
        half_life: Refreshes after which half of ln w is new; 0 takes every measurement as it is.
        max_change: > 1. On an unchanged grid no weight changes by more than this factor in one refresh.
        power, floor: See `ScoreToWeight`; the floor must be positive here, as ln w is averaged.
        initial: Weights to start from; constant if None.
        monitor: A cheap function whose values change when the score would; a change brings the next refresh forward.
        check_every: Steps between two calls of the monitor.
        moved: Relative change ‖now − at the last refresh‖/‖at the last refresh‖ of the monitor that asks for a refresh.
        budget: Share of training time that refreshes may take; one that would exceed it is skipped, and that
            is recorded. None: no limit, and no time is kept. See `TimeBudget`.
        clock: Seconds from any origin, for the budget.

    Attributes:
        table: The current weights.
        history: A `Record` of every refresh and of every one that was skipped.

    Raises:
        InputError: a setting out of range, or initial weights for another target.

    Example:
        >>> def score():  # measures the network that is trained
        ...     return torch.tensor([-4.0, 0.0, 4.0]), torch.tensor([1.0, 2.0, 1.0])
        >>> weights = nd.weights.Refresher(score, "v", nd.schedules.cosine(), every=100)
        >>> weights.after_step(100)
        >>> [record.accepted for record in weights.history]
        [True]
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
        self._update = LimitedUpdate(half_life, max_change, ScoreToWeight(power, floor))
        self.check_every = require_positive_int("check_every", check_every)
        self.history: list[Record] = []
        self._score = score
        self._monitor = DriftMonitor(monitor, require_number("moved", moved, above=0.0))
        self._budget = TimeBudget(budget, clock)
        self._initial = (initial or _constant(self.target)).normalised(schedule)
        if self._initial.target != self.target:
            raise InputError(
                "initial weights", expected=f"weights for {self.target}", got=self._initial.target
            )
        self.table = self._initial

    def __call__(self, log_snr: Tensor) -> Tensor:
        """The current weights; see `WeightTable.__call__`."""
        return self.table(log_snr)

    def after_step(self, step: int) -> None:
        """Refresh every `every` steps or when the monitor has changed; never twice for one step, not even after a resume."""
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
        """Measure and update the weights at any step; an error of the measurement is recorded, not raised.

        Args:
            step: Number of training steps done, for the history.
            cause: Why it is done, for the history.

        Returns:
            What happened, which is also the newest entry of `history`.
        """
        measurements = ranks.gather(self._guarded(self._measure))
        about: dict[str, Any] = {"cause": cause, "cost": max(one.cost for one in measurements)}
        error = ranks.first_error(measurements)
        record = Record(step, False, error, **about) if error else self._move(step, measurements, about)
        self.history.append(record)
        return record

    def state_dict(self) -> dict[str, Any]:
        """Everything that later behaviour depends on, as JSON can hold it."""
        return {
            "settings": self._settings(),
            "initial": self._initial.state_dict(),
            "table": self.table.state_dict() if self.table is not self._initial else None,
            "history": [record.describe() for record in self.history],
            "watch": self._monitor.state(),
            "time": self._budget.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as the refresher that wrote `state`.

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
            self._monitor.load(state["watch"])
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
        """Log-SNR, score and the values of the monitor, on this process."""
        log_snr, score = (torch.as_tensor(part).detach().cpu().double() for part in self._score())
        if log_snr.ndim != 1 or log_snr.shape != score.shape:
            raise MeasurementError(
                f"shapes {tuple(log_snr.shape)} and {tuple(score.shape)} of log_snr and score"
            )
        return _floats(log_snr), _floats(score), self._monitor.measure()

    def _move(self, step: int, measurements: list[RankMeasurement], about: dict[str, Any]) -> Record:
        """Update the weights from what all processes measured."""
        try:
            log_snr, score = ranks.equal_on_all(measurements, 0), ranks.mean(measurements, 1)
            monitored = ranks.mean(measurements, 2)
            about |= {"log_snr": _floats(log_snr), "score": _floats(score)}
            table = self._update.step(self.table, log_snr, score, self.schedule)
        except Exception as error:
            return Record(step, False, first_line(error), **about)
        self.table = table
        self._monitor.refreshed(monitored)
        return Record(step, True, weight=_floats(table.weight), **about)

    def _early(self, step: int) -> str:
        """ "moved" if the monitor asks for a refresh, otherwise empty; an error of the monitor is recorded."""
        if self._monitor.monitor is None or step % self.check_every:
            return ""
        measurements = ranks.gather(self._guarded(lambda: (self._monitor.measure(),)))
        self._budget.charge(max(one.cost for one in measurements))
        try:
            return "moved" if self._monitor.moved(measurements) else ""
        except MeasurementError as error:
            self.history.append(Record(step, False, f"monitor: {error}", "moved"))
            return ""

    def _guarded(self, measure: Callable[[], tuple[tuple[float, ...], ...]]) -> RankMeasurement:
        """What `measure` returns on this process and what it costs; an error is returned too."""
        began = self._budget.begin()
        try:
            values, error = measure(), ""
        except Exception as failure:  # training goes on with the weights it has
            values, error = (), first_line(failure)
        return RankMeasurement(values, error, self._budget.end(began))

    def _settings(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "schedule": self.schedule.describe(),
            "every": self.every,
            **self._update.describe(),
            "monitored": self._monitor.monitor is not None,
            "check_every": self.check_every,
            "moved": self._monitor.change,
            "budget": self._budget.share,
        }


def _constant(target: str) -> WeightTable:
    ends = torch.tensor([-20.0, 20.0], dtype=torch.float64)
    return WeightTable(ends, torch.ones_like(ends), target, name="constant")


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().tolist())
