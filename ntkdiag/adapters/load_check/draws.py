"""The few samples and noise levels on which a network is read in all ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.points import Points
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.randomness import generator

# ln(SNR · variance of the data) of the levels: where neither data nor noise is all, so that targets differ.
_LEVELS = (-2.5, -1.1, 0.3, 1.7, 3.1)
# Shares of training between whose quantiles they are kept.
_INSIDE = (0.02, 0.98)
# Squared errors of single numbers that are averaged at a level: enough for a mean of small data to be known to some
# percent. Few samples of large data have as many.
_NUMBERS = 2**14
_FEWEST, _MOST = 8, 256


@dataclass(frozen=True)
class CheckDraws:
    """Samples, their noise and conditions, the same at every level.

    Attributes:
        x0, epsilon: [N, *shape].
        levels: Log-SNR, [B] in float64.
        cond: Conditions by name, [N, ...] each, or None.
    """

    x0: Tensor
    epsilon: Tensor
    levels: Tensor
    cond: Mapping[str, Tensor] | None = None

    @classmethod
    def draw(
        cls, data: Points, schedule: Schedule, cond: Mapping[str, Tensor] | None = None, seed: int = 0
    ) -> CheckDraws:
        """Draw samples without replacement.

        Args:
            data: [M, *shape].
            schedule: The process, whose training density places the levels.
            cond: Conditions of the data, [M, ...] each.
            seed: Of the choice and the noise.

        Raises:
            InputError: conditions of another number of samples.
        """
        size = math.prod(data.shape[1:])
        count = min(len(data), max(_FEWEST, min(_MOST, _NUMBERS // max(size, 1))))
        chosen = torch.randperm(len(data), generator=generator(seed, stream=0))[:count]
        x0 = data[chosen.to(data.device)]
        noise = torch.randn(x0.shape, generator=generator(seed, stream=1), dtype=torch.float64)
        return cls(x0, noise.to(x0), _levels(schedule, x0), _chosen(cond, chosen, len(data)))

    def part(self, rows: slice) -> CheckDraws:
        """Some of the samples."""
        cond = None if self.cond is None else {name: value[rows] for name, value in self.cond.items()}
        return CheckDraws(self.x0[rows], self.epsilon[rows], self.levels, cond)

    def to(self, like: Tensor) -> CheckDraws:
        """The draws on the device and in the dtype of `like`."""
        cond = (
            None if self.cond is None else {name: _placed(value, like) for name, value in self.cond.items()}
        )
        return CheckDraws(self.x0.to(like), self.epsilon.to(like), self.levels, cond)


def _levels(schedule: Schedule, x0: Tensor) -> Tensor:
    """Log-SNR of the levels; of a discrete schedule at its steps."""
    variance = float((x0.double() - x0.double().mean(0)).square().mean())
    wanted = torch.tensor(_LEVELS, dtype=torch.float64) - math.log(max(variance, 1e-12))
    low, high = schedule.quantile(torch.tensor(_INSIDE, dtype=torch.float64)).tolist()
    levels = wanted.clamp(low, high)
    if schedule.discrete:
        levels = schedule.log_snr(schedule.time(levels).round())
    decreasing: Tensor = levels.unique().flip(0)
    return decreasing


def _chosen(cond: Mapping[str, Tensor] | None, chosen: Tensor, count: int) -> dict[str, Tensor] | None:
    for name, value in (cond or {}).items():
        if len(value) != count:
            raise InputError(
                f"cond {name}", expected=f"{count} rows, one for each sample", got=str(len(value))
            )
    return None if cond is None else {name: value[chosen.to(value.device)] for name, value in cond.items()}


def _placed(value: Tensor, like: Tensor) -> Tensor:
    placed: Tensor = value.to(like) if value.is_floating_point() else value.to(like.device)
    return placed
