"""Measurements exchanged between the ranks (processes) of distributed training, so that all keep the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from ntkdiag.errors import MeasurementError


@dataclass(frozen=True)
class RankMeasurement:
    """What one rank measured, in values that can be sent.

    Attributes:
        values: Columns of numbers of equal length; empty if the measurement failed.
        error: Why it failed, or an empty text.
        cost: What it cost, in training steps.
    """

    values: tuple[tuple[float, ...], ...] = ()
    error: str = ""
    cost: float = 0.0


def gather(value: Any) -> list[Any]:
    """The values of all ranks in order; the value of this process alone where there are no others.

    Every rank must call it, each as often as the others.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def first_error(outcomes: list[RankMeasurement]) -> str:
    """The first error, with its rank where there are several; empty if there is none.

    A measurement that failed on one rank counts as failed on all: the weights must stay the same everywhere.
    """
    for rank, outcome in enumerate(outcomes):
        if outcome.error:
            return outcome.error if len(outcomes) == 1 else f"on process {rank}: {outcome.error}"
    return ""


def mean(outcomes: list[RankMeasurement], column: int) -> Tensor:
    """A column averaged over ranks, in the same order and so with the same bits on each of them.

    Returns:
        Float64 [n].

    Raises:
        MeasurementError: columns of different lengths.
    """
    columns = [outcome.values[column] for outcome in outcomes]
    if len({len(one) for one in columns}) > 1:
        raise MeasurementError("the processes measured different numbers of noise levels")
    return torch.tensor(columns, dtype=torch.float64).mean(dim=0)


def equal_on_all(outcomes: list[RankMeasurement], column: int) -> Tensor:
    """A column that all ranks must agree on, float64 [n].

    Raises:
        MeasurementError: they do not.
    """
    columns = {outcome.values[column] for outcome in outcomes}
    if len(columns) > 1:
        raise MeasurementError("the processes measured at different noise levels")
    return torch.tensor(columns.pop(), dtype=torch.float64)
