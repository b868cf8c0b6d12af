"""One refresh of the weights: an exponential average of ln w, with a limit on how far any weight changes at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import MeasurementError, require_number
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights.measured.score_to_weight import ScoreToWeight
from ntkdiag.weights.tables.weight_table import WeightTable

# Name and origin of every table that a refresher makes.
REFRESHED: dict[str, Any] = {"name": "refreshed", "meta": {"source": "refreshed"}}


@dataclass(frozen=True)
class LimitedUpdate:
    """How weights follow a measurement.

    Attributes:
        half_life: ≥ 0; refreshes after which half of ln w is new, 0 takes every measurement as it is.
        max_change: > 1; on an unchanged grid no weight changes by more than this factor at once.
        shape: Power and floor; the floor is positive, as ln w is averaged.

    Raises:
        InputError: a setting out of range.
    """

    half_life: float
    max_change: float
    shape: ScoreToWeight

    def __post_init__(self) -> None:
        require_number("half_life", self.half_life, at_least=0.0)
        require_number("max_change", self.max_change, above=1.0)
        require_number("floor", self.shape.floor, above=0.0)

    def step(self, table: WeightTable, log_snr: Tensor, score: Tensor, schedule: Schedule) -> WeightTable:
        """The weights that follow `table` after a measurement.

        Args:
            table: The current weights.
            log_snr: Where the score was measured [n].
            score: Amplitude [n]; below zero it counts as zero.
            schedule: The new weights have mean 1 under its density.

        Raises:
            MeasurementError: a score that is not finite.
            InputError: a grid that no table can have, or a score of zero everywhere.
        """
        if not torch.isfinite(score).all():
            first = int(torch.nonzero(~torch.isfinite(score))[0])
            raise MeasurementError(f"score {score[first].item()} at log-SNR {log_snr[first].item():g}")
        amplitude = score.clamp(min=0)
        weight = self.shape.weight(amplitude, self.shape.mean(amplitude))
        aim = WeightTable(log_snr, weight, table.target, **REFRESHED).normalised(schedule)
        now = table(log_snr)
        now = torch.where(now > 0, now, self.shape.floor)
        share = 1 - 2 ** (-1 / self.half_life) if self.half_life > 0 else 1.0
        change = share * (aim.weight.log() - now.log())
        # The normalisation that follows may change all weights by as much as this step changes a single one, so
        # each of the two is limited to half of the allowed change.
        limit = math.log(self.max_change) / 2
        moved = now * change.clamp(-limit, limit).exp()
        return WeightTable(log_snr, moved, table.target, **REFRESHED).normalised(schedule)

    def describe(self) -> dict[str, float]:
        """The settings."""
        return {
            "half_life": self.half_life,
            "max_change": self.max_change,
            "power": self.shape.power,
            "floor": self.shape.floor,
        }
