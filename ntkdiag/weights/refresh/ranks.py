"""What the processes of a training run tell one another, so that all of them have the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from ntkdiag.errors import MeasurementError


@dataclass(frozen=True)
class RankMeasurement:
    """What one process measured, in plain values.

    Attributes:
        values: Columns of numbers of equal length; empty if the measurement failed.
        error: Why it failed, or an empty text.
        cost: What it took.
    """

    values: tuple[tuple[float, ...], ...] = ()
    error: str = ""
    cost: float = 0.0


def everyone(value: Any) -> list[Any]:
    """The value of every process in order of rank; of this one alone where there are no others.

    All processes must call it, each as often as the others.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def failure(outcomes: list[RankMeasurement]) -> str:
    """The first failure, with its process where there are several; empty if there is none.

    A measurement that failed anywhere has failed: the weights must stay the same everywhere.
    """
    for rank, outcome in enumerate(outcomes):
        if outcome.error:
            return outcome.error if len(outcomes) == 1 else f"on process {rank}: {outcome.error}"
    return ""


def mean(outcomes: list[RankMeasurement], column: int) -> Tensor:
    """A column averaged over processes, in the same order on each of them and so to the same bits.

    Returns:
        Float64 [n].

    Raises:
        MeasurementError: columns of different lengths.
    """
    columns = [outcome.values[column] for outcome in outcomes]
    if len({len(one) for one in columns}) > 1:
        raise MeasurementError("the processes measured different numbers of noise levels")
    return torch.tensor(columns, dtype=torch.float64).mean(dim=0)


def same(outcomes: list[RankMeasurement], column: int) -> Tensor:
    """A column that all processes must agree on, float64 [n].

    Raises:
        MeasurementError: they do not.
    """
    columns = {outcome.values[column] for outcome in outcomes}
    if len(columns) > 1:
        raise MeasurementError("the processes measured at different noise levels")
    return torch.tensor(columns.pop(), dtype=torch.float64)
