"""Buckets: the log-SNR intervals that are compared, and the paired draws that every bucket is measured on.

Every bucket uses the same data points and the same noise, so a difference between two buckets is not a
difference between two draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.process.log_snr import Level, as_level
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.randomness import generator

# What `Buckets.default` makes. Outside this range of log-SNR nothing visible happens to data of unit scale (tuned here).
DEFAULT_RANGE = (-10.0, 10.0)
DEFAULT_COUNT = 10

# Share of training that `Buckets.from_density` leaves out on each unbounded side (tuned here): training draws
# too few samples there for the weights to matter.
TAIL = 1e-3


@dataclass(frozen=True)
class Buckets:
    """Adjacent intervals of log-SNR, from noisy to clean.

    Args:
        edges: Ends of the intervals, finite and strictly increasing, one more than there are buckets.
        centers: Log-SNR at which each bucket is measured, inside its interval.

    Raises:
        InputError: edges that do not increase, or a center outside its bucket.

    Example:
        >>> buckets = nd.Buckets.uniform(-10, 10, 4)
        >>> buckets.edges
        (-10.0, -5.0, 0.0, 5.0, 10.0)
        >>> buckets.centers
        (-7.5, -2.5, 2.5, 7.5)
        >>> buckets.assign(1.0).item()  # the bucket that contains log-SNR 1
        2
    """

    edges: tuple[float, ...]
    centers: tuple[float, ...]

    def __post_init__(self) -> None:
        _require_edges(self.edges)
        inside = len(self.centers) == len(self.edges) - 1 and all(
            low < center < high
            for center, (low, high) in zip(self.centers, pairwise(self.edges), strict=True)
        )
        if not inside:
            raise InputError(
                "bucket centers",
                expected=f"one number inside each of {len(self.edges) - 1} buckets",
                got=self.centers,
            )

    @classmethod
    def uniform(cls, low: float, high: float, count: int) -> Buckets:
        """`count` buckets of equal width from log-SNR `low` to `high`, measured at their midpoints.

        Args:
            low: Lowest edge, finite.
            high: Highest edge, finite and above `low`.
            count: Number of buckets, at least 1.

        Raises:
            InputError: `low` is not below `high`, or `count` is not a positive integer.
        """
        require_positive_int("bucket count", count)
        if not -math.inf < low < high < math.inf:
            raise InputError("bucket range", expected="finite log-SNR, low < high", got=f"{low} to {high}")
        return cls.from_edges(np.linspace(low, high, count + 1).tolist())

    @classmethod
    def default(cls, count: int = DEFAULT_COUNT) -> Buckets:
        """`count` buckets of equal width over the default range, log-SNR −10 to 10.

        Args:
            count: Number of buckets, at least 1.

        Raises:
            InputError: `count` is not a positive integer.

        Example:
            >>> nd.Buckets.default(4).edges
            (-10.0, -5.0, 0.0, 5.0, 10.0)
        """
        return cls.uniform(*DEFAULT_RANGE, count)

    @classmethod
    def of(cls, given: BucketsLike, schedule: Schedule) -> Buckets:
        """Buckets as people write them.

        Args:
            given: Buckets, which are returned as they are; a count, for that many of the default range; or edges, as in
                `from_edges`.
            schedule: The process that is measured.

        Raises:
            InputError: none of these, a count below 1, or edges that do not increase.

        Example:
            >>> nd.Buckets.of(2, nd.schedules.cosine()).edges
            (-10.0, 0.0, 10.0)
            >>> nd.Buckets.of([-4, 0, 2], nd.schedules.cosine()).centers
            (-2.0, 1.0)
        """
        if isinstance(given, Buckets):
            return given
        plain: object = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
        if isinstance(plain, Integral) and not isinstance(plain, bool):
            return cls.default(int(plain))
        edges = list(plain) if isinstance(plain, Sequence) and not isinstance(plain, str | bytes) else []
        if not edges or not all(isinstance(edge, Real) and not isinstance(edge, bool) for edge in edges):
            raise InputError(
                "buckets",
                expected="ntkdiag.Buckets, a count such as 10, or edges such as [-10, -5, 0, 5]",
                got=repr(given) if isinstance(given, str | float | None) else type(given).__name__,
            )
        return cls.from_edges(edges)

    @classmethod
    def from_edges(cls, edges: Iterable[float]) -> Buckets:
        """Buckets between given edges, measured at their midpoints.

        Args:
            edges: Log-SNR, at least two, finite and strictly increasing.

        Raises:
            InputError: fewer than two edges, or edges that are not finite or do not increase.
        """
        numbers = tuple(float(edge) for edge in edges)
        _require_edges(numbers)
        return cls(numbers, tuple((low + high) / 2 for low, high in pairwise(numbers)))

    @classmethod
    def from_density(cls, schedule: Schedule, count: int) -> Buckets:
        """`count` buckets in which training draws equally often, measured at their medians.

        Where the schedule's log-SNR is unbounded, the outermost 0.1% of training on that side lies in no
        bucket. Neither does a step of SNR 0.

        Args:
            schedule: Its density is that of training.
            count: Number of buckets, at least 1.

        Raises:
            InputError: `count` is not a positive integer.
        """
        require_positive_int("bucket count", count)
        low, high = schedule.support
        first = float(schedule.cdf(-math.inf)) + (TAIL if math.isinf(low) else 0.0)
        last = 1.0 - (TAIL if math.isinf(high) else 0.0)
        # 2·count + 1 quantiles: edges at the even places, medians at the odd ones.
        share = torch.linspace(first, last, 2 * count + 1, dtype=torch.float64)
        quantiles = schedule.quantile(share).tolist()
        return cls(tuple(quantiles[::2]), tuple(quantiles[1::2]))

    @property
    def count(self) -> int:
        """Number of buckets."""
        return len(self.centers)

    def __len__(self) -> int:
        return self.count

    def assign(self, log_snr: Level) -> Tensor:
        """Index of the bucket that contains each log-SNR.

        Args:
            log_snr: Tensor of any shape, or one number.

        Returns:
            int64 of that shape; −1 outside all buckets and for NaN. A bucket contains its lower edge; the
            last bucket contains its upper edge too.
        """
        level = as_level(log_snr)
        wide = level.double().contiguous()
        edges = torch.tensor(self.edges, dtype=torch.float64, device=level.device)
        index = torch.searchsorted(edges, wide, right=True) - 1
        index = torch.where(wide == edges[-1], self.count - 1, index)
        inside = (wide >= edges[0]) & (wide <= edges[-1])
        return torch.where(inside, index, -1)


# What `Buckets.of` takes: buckets, a count, or edges.
BucketsLike: TypeAlias = "Buckets | int | Sequence[float] | np.ndarray | Tensor"


@dataclass(frozen=True)
class PairedDraws:
    """One draw of data and noise, reused at every noise level.

    Args:
        x0: Data points [N, *shape].
        epsilon: Standard normal noise [N, *shape] of the same dtype.

    Raises:
        InputError: `x0` and `epsilon` differ in shape.
    """

    x0: Tensor
    epsilon: Tensor

    def __post_init__(self) -> None:
        if self.x0.shape != self.epsilon.shape:
            raise InputError(
                "epsilon", expected=f"the shape {tuple(self.x0.shape)} of x0", got=tuple(self.epsilon.shape)
            )

    @classmethod
    def draw(
        cls,
        data: Tensor,
        samples: int,
        seed: int = 0,
        *,
        data_seed: int | None = None,
        noise_seed: int | None = None,
    ) -> PairedDraws:
        """Choose data points without replacement and draw noise for them.

        Args:
            data: All points to choose from [M, *shape], floating point.
            samples: N, at most M.
            seed: Seed of the choice of points and of the noise, which use independent streams.
            data_seed: Seed of the choice of points, if not `seed`.
            noise_seed: Seed of the noise, if not `seed`.

        Returns:
            The draws, on the device and in the dtype of `data`. Equal seeds give equal draws, on any device;
            the noise depends neither on the points chosen nor on the dtype (up to rounding).

        Raises:
            InputError: more samples than data points, data that is not floating point, or a negative seed.
        """
        if not isinstance(data, Tensor) or data.ndim == 0 or not data.is_floating_point():
            got = f"{data.dtype} {tuple(data.shape)}" if isinstance(data, Tensor) else type(data).__name__
            raise InputError("data", expected="a floating-point tensor [M, ...]", got=got)
        require_positive_int("samples", samples)
        if samples > len(data):
            raise InputError("samples", expected=f"at most the {len(data)} points of the data", got=samples)
        chooser = generator(seed if data_seed is None else data_seed, stream=0)
        noise = generator(seed if noise_seed is None else noise_seed, stream=1)
        choice = torch.randperm(len(data), generator=chooser)[:samples]
        epsilon = torch.randn(samples, *data.shape[1:], generator=noise, dtype=torch.float64)
        return cls(data[choice.to(data.device)], epsilon.to(data))

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


def _require_edges(edges: tuple[float, ...]) -> None:
    ordered = all(low < high for low, high in pairwise(edges))
    if len(edges) < 2 or not ordered or not all(map(math.isfinite, edges)):
        raise InputError("bucket edges", expected="at least two finite, increasing log-SNR values", got=edges)
