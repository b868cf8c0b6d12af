"""A weight table from the name of a closed-form rule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import target_name
from ntkdiag.provenance import versions
from ntkdiag.weights.rules.closed_form import ClosedForm
from ntkdiag.weights.tables.weight_table import WeightTable


def rule(
    name: str,
    target: str,
    schedule: Schedule | None = None,
    *,
    clip: float | None = None,
    normalise: bool = True,
    **parameters: Any,
) -> WeightTable:
    """A table of a closed-form rule, exact at every log-SNR.

    Args:
        name: A name in `RULES`.
        target: What the network predicts.
        schedule: The process trained on. With it the table has mean 1 under its density; some rules
            and targets need one.
        clip: Upper bound of the weight before normalisation.
        normalise: False keeps the rule's own scale although a schedule is given.
        **parameters: The rule's own, by name.

    Returns:
        A table with a row every half nat over the schedule's support, cut at ±20 where that has no end.

    Raises:
        InputError: see `evaluate` and `WeightTable.normalised`.

    Example:
        >>> table = nd.weights.rule("erd", "v", nd.schedules.cosine())
        >>> table(torch.tensor([0.0])).shape, table.target
        (torch.Size([1]), 'v')
    """
    form = ClosedForm.of(name, target_name(target), schedule, clip, parameters)
    grid = _grid(schedule)
    table = WeightTable(
        log_snr=grid,
        weight=form(grid),
        target=form.target,
        name=form.text,
        meta={"source": "rule", "versions": versions()},
        rule=form,
    )
    return table.normalised(schedule) if schedule is not None and normalise else table


def _grid(schedule: Schedule | None) -> Tensor:
    """A row every half nat over the support, whose infinite ends are cut at ±20."""
    low, high = schedule.support if schedule is not None else (-math.inf, math.inf)
    low = low if math.isfinite(low) else min(-20.0, high - 1)
    high = high if math.isfinite(high) else max(20.0, low + 1)
    return torch.linspace(low, high, math.ceil(2 * (high - low)) + 1, dtype=torch.float64)
