"""Where a scheduler's timestep becomes a log-SNR, and a log-SNR a timestep."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.continuous import EDM, Flow
from ntkdiag.process.schedules.diffusers_scheduler import from_diffusers, timestep_of_pure_noise
from ntkdiag.process.schedules.discrete import TableSchedule


class Timesteps:
    """The times that a schedule or a scheduler counts in, and their log-SNR.

    Args:
        scheduler: A `Schedule`, which counts in its own time, or a scheduler object of the diffusers library,
            which is read once, here. Of that library, flow-matching schedulers count t·num_train_timesteps,
            EDM schedulers ln(s)/4, and all others the steps of their table.

    Attributes:
        schedule: The noising process.

    Raises:
        InputError: a scheduler that is not recognised.
    """

    def __init__(self, scheduler: Any) -> None:
        own = isinstance(scheduler, Schedule)
        self.schedule: Schedule = scheduler if own else from_diffusers(scheduler)
        self._logarithmic = not own and isinstance(self.schedule, EDM)
        is_flow = not own and isinstance(self.schedule, Flow)
        self._scale = timestep_of_pure_noise(scheduler) if is_flow else 1.0

    def log_snr(self, timesteps: Tensor) -> Tensor:
        """Log-SNR at timesteps of any shape, in float64.

        Raises:
            InputError: a timestep outside the schedule, where a table would silently answer for its last step.
        """
        given = timesteps.to(torch.float64)
        times = torch.exp(4 * given) if self._logarithmic else given / self._scale
        outside = ~((times >= 0) & (times <= self._last_time))
        if outside.any():
            raise InputError(
                f"timesteps for schedule '{self.schedule.name}'",
                expected=f"times from 0 to {self._last_time:g}",
                got=f"{times[outside].flatten()[0].item():g}",
            )
        return self.schedule.log_snr(times)

    def at(self, log_snr: Tensor) -> Tensor:
        """Timesteps at given log-SNR, the inverse of `log_snr`.

        Args:
            log_snr: float64, any shape.

        Returns:
            float64 of that shape; of a table the nearest step on its time axis, int64.
        """
        times = self.schedule.time(log_snr)
        if self.schedule.discrete:
            return times.round().long()
        return times.log() / 4 if self._logarithmic else times * self._scale

    @property
    def _last_time(self) -> float:
        if isinstance(self.schedule, TableSchedule):
            return len(self.schedule.levels) - 1
        return math.inf if isinstance(self.schedule, EDM) else 1.0
