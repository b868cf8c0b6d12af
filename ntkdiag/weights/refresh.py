"""Refresher: weights that follow the training, measured again every few hundred steps.

The measurement itself is handed in as a function, so this file knows nothing of kernels. A refresh moves
ln w a step towards the newly measured weights and never far at once; a measurement that fails leaves the
weights as they are and is written into the history.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError, MeasurementError, require_positive_int
from ntkdiag.process.schedule import Schedule
from ntkdiag.process.target import target_name
from ntkdiag.weights.shape import Shape
from ntkdiag.weights.table import WeightTable

# What tells a table of this file from others.
_REFRESHED: dict[str, Any] = {"name": "refreshed", "meta": {"source": "refreshed"}}

_SERIES = ("log_snr", "score", "weight")

# () → (log-SNR [n] increasing, amplitude [n] as in ntkdiag.weights.measured)
ScoreFunction = Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Record:
    """One refresh.

    Attributes:
        step: Training step after which it ran.
        accepted: Whether the weights were changed.
        reason: Why not; empty if accepted.
        log_snr, score: What was measured; empty if the measurement itself failed.
        weight: The new weights on that log-SNR; empty if not accepted.
    """

    step: int
    accepted: bool
    reason: str = ""
    log_snr: tuple[float, ...] = ()
    score: tuple[float, ...] = ()
    weight: tuple[float, ...] = ()


class Refresher:
    """A `WeightSource` whose weights are measured again during training.

    Args:
        score: Measures now: () → (log_snr [n], score [n]); the score is an amplitude ≥ 0, the weight
            grows with it. A score below zero counts as zero.
        target: The target whose squared error is weighted.
        schedule: The process trained on; after every refresh the mean weight under its density is 1.
        every: Steps between refreshes.
        half_life: Refreshes after which half of ln w is new; 0 takes every measurement as it is.
        max_change: > 1. On an unchanged grid no weight changes by more than this factor in one refresh.
        power, floor: See `Shape`; the floor must be positive here, as ln w is averaged.
        initial: Weights to start from; constant if None.

    Attributes:
        table: The weights of now.
        history: A `Record` of every refresh.

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
    ) -> None:
        self.target = target_name(target)
        self.schedule = schedule
        self.every = require_positive_int("every", every)
        self.half_life = _at_least("half_life", half_life, 0.0)
        self.max_change = _above("max_change", max_change, 1.0)
        self.shape = Shape(power, _above("floor", floor, 0.0))
        self.history: list[Record] = []
        self._score = score
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
        """Refresh if it is time, but never twice for one step, as a resume might ask for."""
        if step % self.every == 0 and step > self._last_step:
            self.refresh(step)

    def refresh(self, step: int) -> Record:
        """Measure and move the weights, whatever the step; never raises because of the measurement.

        Args:
            step: Number of training steps done, for the history.

        Returns:
            What happened, which is also the newest entry of `history`.
        """
        measured: dict[str, Any] = {}
        try:
            log_snr, score = (torch.as_tensor(part).detach().cpu().double() for part in self._score())
            measured = {"log_snr": _floats(log_snr), "score": _floats(score)}
            table = self._moved(log_snr, score)
        except Exception as error:  # any failure of a measurement: training goes on with the weights it has
            record = Record(step, False, f"{type(error).__name__}: {error}", **measured)
        else:
            self.table = table
            record = Record(step, True, weight=_floats(table.weight), **measured)
        self.history.append(record)
        return record

    def state_dict(self) -> dict[str, Any]:
        """All that later behaviour depends on, JSON-able."""
        return {
            "settings": self._settings(),
            "initial": self._initial.state_dict(),
            "table": self.table.state_dict() if self.table is not self._initial else None,
            "history": [_entry(record) for record in self.history],
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
            table = None if state["table"] is None else WeightTable(**state["table"], **_REFRESHED)
            history = [_record(entry) for entry in state["history"]]
        except (KeyError, TypeError) as error:
            raise InputError(
                "refresher in the checkpoint", expected="a whole state", got=repr(error)
            ) from error
        self.table = self._initial if table is None else table
        self.history = history

    @property
    def _last_step(self) -> int:
        return self.history[-1].step if self.history else 0

    def _moved(self, log_snr: Tensor, score: Tensor) -> WeightTable:
        """The weights a refresh leads to.

        Raises:
            MeasurementError: the measurement is not usable.
            InputError: its grid is not.
        """
        if log_snr.ndim != 1 or log_snr.shape != score.shape:
            raise MeasurementError(
                f"shapes {tuple(log_snr.shape)} and {tuple(score.shape)} of log_snr and score"
            )
        if not torch.isfinite(score).all():
            first = int(torch.nonzero(~torch.isfinite(score))[0])
            raise MeasurementError(f"score {score[first].item()} at log-SNR {log_snr[first].item():g}")
        amplitude = score.clamp(min=0)
        aim = _refreshed(log_snr, self.shape.weight(amplitude, self.shape.mean(amplitude)), self.target)
        now = self.table(log_snr)
        now = torch.where(now > 0, now, self.shape.floor)
        share = 1 - 2 ** (-1 / self.half_life) if self.half_life > 0 else 1.0
        change = share * (aim.normalised(self.schedule).weight.log() - now.log())
        # The normalisation that follows may move all weights by as much as a single one moved here, so
        # each of the two gets half of the allowed change.
        limit = math.log(self.max_change) / 2
        moved = now * change.clamp(-limit, limit).exp()
        return _refreshed(log_snr, moved, self.target).normalised(self.schedule)

    def _settings(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "schedule": self.schedule.describe(),
            "every": self.every,
            "half_life": self.half_life,
            "max_change": self.max_change,
            "power": self.shape.power,
            "floor": self.shape.floor,
        }


def _constant(target: str) -> WeightTable:
    ends = torch.tensor([-20.0, 20.0], dtype=torch.float64)
    return WeightTable(ends, torch.ones_like(ends), target, name="constant")


def _refreshed(log_snr: Tensor, weight: Tensor, target: str) -> WeightTable:
    return WeightTable(log_snr, weight, target, **_REFRESHED)


def _entry(record: Record) -> dict[str, Any]:
    columns = {name: [_plain(value) for value in getattr(record, name)] for name in _SERIES}
    return {**asdict(record), **columns}


def _record(entry: dict[str, Any]) -> Record:
    columns = {name: tuple(float(value) for value in entry[name]) for name in _SERIES}
    return Record(entry["step"], entry["accepted"], entry["reason"], **columns)


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().tolist())


def _plain(value: float) -> float | str:
    """JSON has no NaN and no infinities; `float` reads their names back."""
    return value if math.isfinite(value) else str(value)


def _at_least(name: str, value: float, minimum: float) -> float:
    if not minimum <= value < math.inf:
        raise InputError(name, expected=f"a number of at least {minimum:g}", got=value)
    return float(value)


def _above(name: str, value: float, minimum: float) -> float:
    if not minimum < value < math.inf:
        raise InputError(name, expected=f"a number above {minimum:g}", got=value)
    return float(value)
