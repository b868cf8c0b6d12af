"""Where a scheduler's timestep becomes a log-SNR, and a log-SNR a timestep.

A schedule that is read from a scheduler counts time as the scheduler does, so both say the same here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.diffusers_scheduler import from_diffusers

# Schedulers write their last time rounded: 1.5708 for π/2.
_ROUNDING = 1e-5


class Timesteps:
    """The times that a schedule or a scheduler counts in, and their log-SNR.

    Args:
        scheduler: A `Schedule`, or a scheduler object of the diffusers library, which is read once, here, by
            `ntkdiag.schedules.from_diffusers`.

    Attributes:
        schedule: The noising process; its own time is the scheduler's.

    Raises:
        InputError: a scheduler that is not recognised.
    """

    def __init__(self, scheduler: Any) -> None:
        self.schedule: Schedule = scheduler if isinstance(scheduler, Schedule) else from_diffusers(scheduler)

    def log_snr(self, timesteps: Tensor) -> Tensor:
        """Log-SNR at timesteps of any shape, in float64.

        Raises:
            InputError: a timestep that the schedule does not have, where a table would silently answer for its last step:
                one outside its range, or whole numbers where its time is a logarithm or an angle.
        """
        what = f"timesteps for schedule '{self.schedule.name}'"
        first, last = self.schedule.time_range
        if not (timesteps.is_floating_point() or self.schedule.whole_times):
            raise InputError(
                what,
                expected=f"floating-point times from {first:g} to {last:g}, since it has no whole steps",
                got=f"{timesteps.dtype}",
                fix="Give the scheduler's own timesteps, or the noise levels (from_sigmas).",
            )
        times = timesteps.to(torch.float64)
        outside = ~((times >= first) & (times <= last * (1 + _ROUNDING)))
        if outside.any():
            raise InputError(
                what,
                expected=f"times from {first:g} to {last:g}",
                got=f"{times[outside].flatten()[0].item():g}",
            )
        return self.schedule.log_snr(times.clamp(first, last))

    def at(self, log_snr: Tensor) -> Tensor:
        """Timesteps at given log-SNR, the inverse of `log_snr`.

        Args:
            log_snr: float64, any shape.

        Returns:
            float64 of that shape; of a table the nearest step on its time axis, int64.
        """
        times = self.schedule.time(log_snr)
        return times.round().long() if self.schedule.discrete else times


def log_snr_of_timesteps(scheduler: Any, timesteps: Tensor) -> Tensor:
    """Log-SNR at the times of a schedule or of a scheduler.

    Args:
        scheduler: A `Schedule`, or a scheduler object of the diffusers library, which is read anew at every call.
        timesteps: Times of any shape, as the scheduler counts them.

    Returns:
        float64 of that shape.

    Raises:
        InputError: a scheduler that is not recognised, or timesteps that it does not have.

    Example:
        >>> schedule = nd.schedules.flow(time_scale=1000)  # as most schedulers of flow matching count
        >>> nd.schedules.log_snr_of_timesteps(schedule, torch.tensor([500.0])).item()
        0.0
    """
    return Timesteps(scheduler).log_snr(torch.as_tensor(timesteps))
