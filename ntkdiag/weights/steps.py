"""From the steps and timesteps that trainers count in to log-SNR."""

from __future__ import annotations

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
    """Log-SNR at a scheduler's own times.

    Args:
        scheduler: A `Schedule`, or a scheduler object of the diffusers library. Flow-matching objects of
            that library count t·num_train_timesteps, its EDM objects ln(s)/4.
        timesteps: float64, any shape.

    Raises:
        InputError: times outside the schedule, where a table would silently answer for its last step.
    """
    if isinstance(scheduler, Schedule):
        schedule, times = scheduler, timesteps
    else:
        schedule = schedules.from_diffusers(scheduler)
        times = _native(scheduler, schedule, timesteps)
    last = _last_time(schedule)
    bad = ~((times >= 0) & (times <= last))
    if bad.any():
        raise InputError(
            f"timesteps for schedule '{schedule.name}'",
            expected=f"times from 0 to {last:g}",
            got=f"{times[bad].flatten()[0].item():g}",
        )
    return schedule.log_snr(times)


def _native(scheduler: Any, schedule: Schedule, timesteps: Tensor) -> Tensor:
    if isinstance(schedule, Flow):
        config = getattr(scheduler, "config", None)
        steps = config.get("num_train_timesteps") if isinstance(config, dict) else None
        return timesteps / float(steps or getattr(config, "num_train_timesteps", None) or 1000)
    return torch.exp(4 * timesteps) if isinstance(schedule, EDM) else timesteps


def _last_time(schedule: Schedule) -> float:
    if isinstance(schedule, TableSchedule):
        return len(schedule.levels) - 1
    return float("inf") if isinstance(schedule, EDM) else 1.0
