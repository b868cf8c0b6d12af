"""Argument: what a weight function is a function of, and the noise levels at which an audit evaluates it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.discrete import log_snr_of_steps
from ntkdiag.process.schedules.timesteps import Timesteps

ARGUMENTS = ("snr", "log_snr", "sigma", "timesteps")

# Published samplings lie within log-SNR ±15 but for one draw in a thousand (cosine, uniform t).
REACH = 15.0
_POINTS = 121
# Largest number of steps of a table that are evaluated.
_MOST_STEPS = 500


class Argument:
    """One of `ARGUMENTS`, with the process it belongs to.

    Args:
        argument: "snr" α²/σ², "log_snr" ln α²/σ², "sigma" the noise level σ/α of EDM and k-diffusion, or
            "timesteps", a scheduler's own time: whole steps of a table, t in [0, 1] of a continuous path.
        scheduler: A `Schedule`, a scheduler object of the diffusers library, or None.

    Attributes:
        name: The argument.
        schedule: The process, or None.

    Raises:
        InputError: unknown argument, or timesteps of no scheduler.
    """

    def __init__(self, argument: str, scheduler: Any = None) -> None:
        self.name = require_one_of("argument", argument, ARGUMENTS)
        if self.name == "timesteps" and scheduler is None:
            raise InputError(
                "schedule",
                expected="the schedule whose timesteps the function takes",
                got="none",
                fix="Pass the one you train with, for example {schedule}.",
                arguments={"schedule": "ntkdiag.schedules.linear_beta()"},
            )
        self._timesteps = None if scheduler is None else Timesteps(scheduler)
        self.schedule: Schedule | None = None if self._timesteps is None else self._timesteps.schedule

    def of(self, log_snr: Tensor) -> Tensor:
        """The argument at log-SNR [n], ±∞ included; float64, int64 for the steps of a table."""
        match self.name:
            case "snr":
                return log_snr.exp()
            case "log_snr":
                return log_snr
            case "sigma":
                return torch.exp(-log_snr / 2)
            case _:
                assert self._timesteps is not None  # see __init__
                return self._timesteps.at(log_snr)

    def levels(self) -> Tensor:
        """Finite log-SNR at which the function is evaluated, ascending float64 [n].

        The steps of a table, thinned out evenly beyond 500; else 121 values over the part of the support
        within ±15.
        """
        if self.schedule is not None and self.schedule.discrete:
            steps = log_snr_of_steps(self.schedule).flip(0)
            finite = steps[torch.isfinite(steps)]
            keep = torch.linspace(0, len(finite) - 1, min(len(finite), _MOST_STEPS)).round().long()
            return finite[keep]
        low, high = (-math.inf, math.inf) if self.schedule is None else self.schedule.support
        low = max(low, min(-REACH, high - 1))
        high = min(high, max(REACH, low + 1))
        return torch.linspace(low, high, _POINTS, dtype=torch.float64)

    def reaches(self, end: float) -> bool | None:
        """Whether training may draw log-SNR `end` = ±∞; None if that is unknown or has probability zero."""
        if self.schedule is None:
            return None
        if self.schedule.discrete:
            return bool((log_snr_of_steps(self.schedule) == end).any())
        return None if self.schedule.support[0 if end < 0 else 1] == end else False

    def has(self, end: float) -> bool:
        """Whether the argument can express log-SNR `end` = ±∞."""
        return self.name != "timesteps" or (
            self.reaches(end) is not False
            and bool(torch.isfinite(self.of(torch.tensor([end]).double())).all())
        )
