"""Between log-SNR and the steps and timesteps that trainers count in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.paths import EDM, Flow
from ntkdiag.process.schedule import Schedule
from ntkdiag.process.table import TableSchedule


def step_levels(schedule: Schedule) -> Tensor:
    """Log-SNR of every step of a discrete schedule, float64 [steps].

    Raises:
        InputError: the schedule is continuous.
    """
    if not isinstance(schedule, TableSchedule):
        raise InputError(
            "schedule",
            expected="a discrete schedule, such as linear_beta() or from_diffusers(scheduler)",
            got=f"'{schedule.name}', which is continuous",
        )
    return torch.tensor(schedule.levels, dtype=torch.float64)


def log_snr_of_timesteps(scheduler: Any, timesteps: Tensor) -> Tensor:
    """Log-SNR at a scheduler's own times; see `clock`, which is for many calls."""
    return clock(scheduler)(timesteps)


def clock(scheduler: Any) -> Callable[[Tensor], Tensor]:
    """A function from a scheduler's own times to log-SNR.

    Args:
        scheduler: A `Schedule`, or a scheduler object of the diffusers library, which is read now. Flow-matching
            objects of that library count t·num_train_timesteps, its EDM objects ln(s)/4.

    Returns:
        A function of times of any shape (taken to float64). It refuses times outside the schedule, where a table
        would silently answer for its last step.

    Raises:
        InputError: a scheduler that is not understood.
    """
    known = isinstance(scheduler, Schedule)
    schedule = scheduler if known else schedules.from_diffusers(scheduler)
    last = _last_time(schedule)

    def log_snr(timesteps: Tensor) -> Tensor:
        given = timesteps.to(torch.float64)
        times = given if known else _native(scheduler, schedule, given)
        bad = ~((times >= 0) & (times <= last))
        if bad.any():
            raise InputError(
                f"timesteps for schedule '{schedule.name}'",
                expected=f"times from 0 to {last:g}",
                got=f"{times[bad].flatten()[0].item():g}",
            )
        return schedule.log_snr(times)

    return log_snr


def timesteps_of_log_snr(scheduler: Any, log_snr: Tensor) -> Tensor:
    """A scheduler's own times at given log-SNR, the inverse of `log_snr_of_timesteps`.

    Args:
        scheduler: As there.
        log_snr: float64, any shape.

    Returns:
        float64 of that shape; for a table the nearest step on its time axis, int64.
    """
    if isinstance(scheduler, Schedule):
        times = scheduler.time(log_snr)
        return times.round().long() if scheduler.discrete else times
    schedule = schedules.from_diffusers(scheduler)
    if isinstance(schedule, Flow):
        return schedule.time(log_snr) * _flow_steps(scheduler)
    return (
        schedule.time(log_snr).log() / 4
        if isinstance(schedule, EDM)
        else timesteps_of_log_snr(schedule, log_snr)
    )


def _native(scheduler: Any, schedule: Schedule, timesteps: Tensor) -> Tensor:
    if isinstance(schedule, Flow):
        return timesteps / _flow_steps(scheduler)
    return torch.exp(4 * timesteps) if isinstance(schedule, EDM) else timesteps


def _flow_steps(scheduler: Any) -> float:
    """What t = 1 is called by a flow-matching scheduler."""
    config = getattr(scheduler, "config", None)
    steps = config.get("num_train_timesteps") if isinstance(config, dict) else None
    return float(steps or getattr(config, "num_train_timesteps", None) or 1000)


def _last_time(schedule: Schedule) -> float:
    if isinstance(schedule, TableSchedule):
        return len(schedule.levels) - 1
    return float("inf") if isinstance(schedule, EDM) else 1.0
