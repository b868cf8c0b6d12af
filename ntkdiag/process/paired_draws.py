"""The draws of data and noise that every bucket is measured on.

Every bucket uses the same data points and the same noise, so a difference between two buckets is not a
difference between two draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ntkdiag.conditions import Conditions, checked_conditions, rows_of
from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.process.log_snr import Level
from ntkdiag.process.points import Points
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.randomness import generator


@dataclass(frozen=True)
class PairedDraws:
    """One draw of data and noise, reused at every noise level.

    Args:
        x0: Data points [N, *shape].
        epsilon: Standard normal noise [N, *shape] of the same dtype.
        cond: Conditions of the data points by name, [N, ...].
        rows: Which of the data points they are, int64 [N]; None where that is not known.

    Raises:
        InputError: `x0` and `epsilon` differ in shape, or a condition has another number of rows.

    Example:
        >>> from ntkdiag.process.paired_draws import PairedDraws
        >>> draws = PairedDraws.draw(data.train, 16, seed=0)
        >>> draws.x0.shape, len(draws)
        (torch.Size([16, 2]), 16)
    """

    x0: Tensor
    epsilon: Tensor
    cond: Conditions = field(default_factory=dict)
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        checked_conditions("conditions of the draws", self.cond, len(self.x0))
        if self.x0.shape != self.epsilon.shape:
            raise InputError(
                "epsilon", expected=f"the shape {tuple(self.x0.shape)} of x0", got=tuple(self.epsilon.shape)
            )

    @classmethod
    def draw(
        cls,
        data: Points,
        samples: int,
        seed: int = 0,
        *,
        data_seed: int | None = None,
        noise_seed: int | None = None,
        cond: Conditions | None = None,
    ) -> PairedDraws:
        """Choose data points without replacement and draw noise for them.

        Args:
            data: All points to choose from [M, *shape], floating point.
            samples: N, at most M.
            seed: Seed of the choice of points and of the noise, which use independent streams.
            data_seed: Seed of the choice of points, if not `seed`.
            noise_seed: Seed of the noise, if not `seed`.
            cond: Conditions of the data points by name, [M, ...], such as `Data.conditions`; chosen with them.

        Returns:
            The draws, on the device and in the dtype of `data`. Equal seeds give equal draws, on any device;
            the noise depends neither on the points chosen nor on the dtype (up to rounding).

        Raises:
            InputError: more samples than data points, data that is not floating point, a condition with another number of
                rows, or a negative seed.
        """
        given = isinstance(getattr(data, "dtype", None), torch.dtype) and hasattr(data, "device")
        if not given or not data.dtype.is_floating_point or len(data.shape) == 0:
            got = f"{data.dtype} {tuple(data.shape)}" if given else type(data).__name__
            raise InputError("data", expected="a floating-point tensor [M, ...]", got=got)
        require_positive_int("samples", samples)
        if samples > len(data):
            raise InputError("samples", expected=f"at most the {len(data)} points of the data", got=samples)
        available = checked_conditions("cond", cond or {}, len(data))
        chooser = generator(seed if data_seed is None else data_seed, stream=0)
        noise = generator(seed if noise_seed is None else noise_seed, stream=1)
        choice = torch.randperm(len(data), generator=chooser)[:samples]
        epsilon = torch.randn(samples, *data.shape[1:], generator=noise, dtype=torch.float64)
        points = data[choice.to(data.device)]
        return cls(points, epsilon.to(data.device, data.dtype), rows_of(available, choice), choice)

    def __len__(self) -> int:
        return len(self.x0)

    def at(self, schedule: Schedule, log_snr: Level) -> Tensor:
        """The noisy samples x = α x0 + σ ε at a noise level.

        Args:
            schedule: The process.
            log_snr: One number or [N].

        Returns:
            [N, *shape].
        """
        return schedule.diffuse(self.x0, self.epsilon, log_snr)
