"""WeightFunction: the function under audit, called as its author would call it, and its result as a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntkdiag.errors import InputError, first_line
from ntkdiag.process.target import target_name
from ntkdiag.weights.audit.argument import Argument
from ntkdiag.weights.source import WeightSource
from ntkdiag.weights.tables.weight_table import WeightTable


class CallFailed(Exception):
    """The function raised, or returned something that is not numbers; the message says what, in one line."""


@dataclass(frozen=True)
class WeightFunction:
    """A weight function, what it is a function of, and the target it is applied to.

    Attributes:
        function: Takes a tensor of the axis' argument, or a numpy array.
        axis: What it is a function of.
        target: The target whose squared error it multiplies.
        table: The table behind the function, or None.
    """

    function: Callable[[Any], Any]
    argument: Argument
    target: str
    table: WeightTable | None = None

    @classmethod
    def of(cls, weights: Any, target: str | None, argument: str, scheduler: Any) -> WeightFunction:
        """From the arguments of `audit`.

        Raises:
            InputError: not a function, table or file of a table, no target, or what `Argument` refuses.
        """
        if isinstance(weights, str | Path):
            weights = WeightTable.load(weights)
        own = isinstance(weights, WeightSource)
        if not callable(weights):
            raise InputError(
                "weights",
                expected="a function, a weight table or the path of one",
                got=type(weights).__name__,
            )
        if target is None and not own:
            raise InputError("target", expected="the target the weights are applied to", got="none")
        return cls(
            weights,
            Argument("log_snr" if own else argument, scheduler),
            target_name(weights.target if target is None else target),
            weights if isinstance(weights, WeightTable) else None,
        )

    def call(self, argument: Tensor) -> Tensor:
        """What the function returns for a batch, in its own shape, float64 on the CPU.

        Args:
            argument: [n]; the function gets a copy. If it fails on a tensor it gets a numpy array.

        Raises:
            CallFailed: it fails on both, or returns something other than numbers.
        """
        with torch.no_grad(), np.errstate(all="ignore"):
            try:
                returned = self.function(argument.clone())
            except Exception as failure:
                try:
                    returned = self.function(argument.numpy().copy())
                except Exception:
                    raise CallFailed(first_line(failure)) from failure
        return _numbers(returned)

    def at(self, log_snr: float) -> float:
        """The weight of a batch of one; NaN if the function fails.

        Args:
            log_snr: May be infinite.
        """
        try:
            returned = self.call(self.argument.of(torch.tensor([log_snr], dtype=torch.float64)))
        except CallFailed:
            return math.nan
        return returned.flatten()[0].item() if returned.numel() else math.nan


def _numbers(returned: Any) -> Tensor:
    """As a float64 tensor."""
    try:
        if isinstance(returned, list | tuple):
            returned = torch.stack([torch.as_tensor(value) for value in returned])
        values = torch.as_tensor(returned).detach().cpu().to_dense()
        if values.is_complex():
            raise TypeError("complex numbers")
        return values.to(torch.float64)
    except Exception as failure:
        kind = type(returned).__name__
        raise CallFailed(f"it returned {kind}, not a tensor of numbers ({first_line(failure)})") from failure
