"""Buckets: the log-SNR intervals that are compared, and the paired draws that every bucket is measured on.

Every bucket uses the same data points and the same noise, so a difference between two buckets is not a
difference between two draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Integral, Real
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ntkdiag.conditions import Conditions, checked_conditions, rows_of
from ntkdiag.errors import InputError, kind_of, require_positive_int
from ntkdiag.process.log_snr import Level, as_level
from ntkdiag.process.points import Points
from ntkdiag.process.schedules.base import Schedule, require_schedule
from ntkdiag.randomness import generator

DEFAULT_COUNT = 10

# Share of training that the default range leaves out on each side, and `Buckets.from_density` on each unbounded one (tuned
# here): training draws too few samples there for the weights to matter.
TAIL = 1e-3

# Numbers that differ less from symmetry about 0, relative to the largest, differ by rounding only.
_ROUNDING = 1e-9


# Buckets whose edges are printed one by one.
_MOST_SHOWN = 12


@dataclass(frozen=True, repr=False)
class Buckets:
    """Adjacent intervals of log-SNR, from noisy to clean.

    Args:
        edges: Ends of the intervals, finite and strictly increasing, one more than there are buckets.
        centers: Log-SNR at which each bucket is measured, inside its interval; the midpoints if left out.

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
    centers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        edges = _numbers(self.edges)
        _require_edges(edges)
        midpoints = tuple((low + high) / 2 for low, high in pairwise(edges))
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "centers", tuple(self.centers) or midpoints)
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
        if not (_all_numbers([low, high]) and -math.inf < low < high < math.inf):
            raise InputError(
                "bucket range", expected="finite log-SNR, low < high", got=f"{low!r} to {high!r}"
            )
        step = np.arange(count + 1)
        # Unlike np.linspace, a sum that gives opposite edges for opposite ends.
        inner = (low * (count - step) + high * step) / count
        return cls.from_edges([low, *inner[1:-1].tolist(), high])

    @classmethod
    def default(cls, schedule: Schedule, count: int = DEFAULT_COUNT) -> Buckets:
        """`count` buckets of equal width over the range in which a schedule trains, `trained_range`.

        Args:
            schedule: Its density is that of training.
            count: Number of buckets, at least 1.

        Raises:
            InputError: `count` is not a positive integer, or `schedule` no schedule.

        Example:
            >>> [round(edge, 2) for edge in nd.Buckets.default(nd.schedules.cosine(), 2).edges]
            [-12.91, 0.0, 12.91]
        """
        require_schedule("schedule of the default buckets", schedule)
        return cls.uniform(*trained_range(schedule), count)

    @classmethod
    def of(cls, given: BucketsLike, schedule: Schedule, *, extrapolate: bool | None = None) -> Buckets:
        """Buckets as people write them, where the schedule trains.

        Args:
            given: Buckets, which are returned as they are; a count, for that many of the default range; or edges, as in
                `from_edges`.
            schedule: The process that is measured.
            extrapolate: Also take buckets at noise levels that the schedule never trains, see `outside`; None where the
                caller does not offer that.

        Raises:
            InputError: none of these, a count below 1, edges that do not increase, or buckets outside the schedule's support
                without `extrapolate`.

        Example:
            >>> [round(center, 2) for center in nd.Buckets.of(2, nd.schedules.cosine()).centers]
            [-6.46, 6.46]
            >>> nd.Buckets.of([-4, 0, 2], nd.schedules.cosine()).centers
            (-2.0, 1.0)
        """
        found = cls._of(given, schedule)
        outside = [center for center, out in zip(found.centers, found.outside(schedule), strict=True) if out]
        if outside and not extrapolate:
            raise _never_trained(outside, schedule, offered=extrapolate is not None)
        return found

    @classmethod
    def _of(cls, given: BucketsLike, schedule: Schedule) -> Buckets:
        if isinstance(given, Buckets):
            return given
        plain: object = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
        if isinstance(plain, Integral) and not isinstance(plain, bool):
            return cls.default(schedule, int(plain))
        edges = list(plain) if isinstance(plain, Sequence) and not isinstance(plain, str | bytes) else []
        if not _all_numbers(edges):
            raise InputError(
                "buckets",
                expected="ntkdiag.Buckets, a count such as 10, or edges such as [-10, -5, 0, 5]",
                got=repr(given) if isinstance(given, str | float | None) else kind_of(given),
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
        return cls(_numbers(edges))

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
        quantiles = _symmetric(schedule.quantile(share).tolist())
        return cls(tuple(quantiles[::2]), tuple(quantiles[1::2]))

    def outside(self, schedule: Schedule) -> tuple[bool, ...]:
        """Whether each bucket is measured at a noise level outside the schedule's support, which training never draws."""
        low, high = schedule.support
        return tuple(not low <= center <= high for center in self.centers)

    def mass(self, schedule: Schedule) -> tuple[float, ...]:
        """Share of training whose noise level lies in each bucket; below 1 in all where training also draws outside.

        Args:
            schedule: Its density is that of training.

        Example:
            >>> nd.Buckets.uniform(-8, 8, 2).mass(nd.schedules.linear_log_snr(-8, 8))
            (0.5, 0.5)
        """
        below = schedule.cdf(torch.tensor(self.edges, dtype=torch.float64))
        return tuple(below.diff().tolist())

    def __repr__(self) -> str:
        if self.count > _MOST_SHOWN:
            return f"Buckets({self.count} from log-SNR {self.edges[0]:.4g} to {self.edges[-1]:.4g})"
        return f"Buckets(edges=({', '.join(f'{edge:.4g}' for edge in self.edges)}))"

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


def trained_range(schedule: Schedule) -> tuple[float, float]:
    """Log-SNR between which training draws, but for the outermost 0.1% on either side and for a step of SNR 0.

    Args:
        schedule: Its density is that of training.

    Returns:
        Lowest and highest log-SNR, finite.

    Example:
        >>> from ntkdiag.process.buckets import trained_range
        >>> [round(end, 2) for end in trained_range(nd.schedules.edm())]
        [-5.02, 9.82]
    """
    zero_snr = float(schedule.cdf(-math.inf))
    share = torch.tensor([zero_snr + TAIL * (1 - zero_snr), 1 - TAIL], dtype=torch.float64)
    low, high = _symmetric(schedule.quantile(share).tolist())
    return low, high


def _never_trained(centers: Sequence[float], schedule: Schedule, offered: bool) -> InputError:
    low, high = schedule.support
    return InputError(
        "buckets",
        expected=f"log-SNR {low:.4g} to {high:.4g}, which is where schedule '{schedule.name}' trains",
        got="buckets at " + ", ".join(f"{center:.4g}" for center in centers),
        fix="With {extrapolate} noise levels that the network never saw are measured all the same, and marked."
        if offered
        else "Leave them out: a network trained on it never saw such noise levels.",
        arguments={"extrapolate": True} if offered else None,
    )


def _symmetric(numbers: list[float]) -> list[float]:
    """Increasing numbers, exactly symmetric about 0 where rounding alone makes them asymmetric: −2e-16 becomes 0."""
    opposite = [-number for number in reversed(numbers)]
    most = _ROUNDING * max(map(abs, numbers))
    if any(abs(one - other) > most for one, other in zip(numbers, opposite, strict=True)):
        return numbers
    return [(one + other) / 2 for one, other in zip(numbers, opposite, strict=True)]


# What `Buckets.of` takes: buckets, a count, or edges.
BucketsLike: TypeAlias = "Buckets | int | Sequence[float] | np.ndarray | Tensor"


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
        >>> from ntkdiag.process.buckets import PairedDraws
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


def _numbers(edges: object) -> tuple[float, ...]:
    """Edges as Python's numbers.

    Raises:
        InputError: they are something else, such as a count, which needs the schedule to become edges.
    """
    plain: object = edges.tolist() if isinstance(edges, Tensor | np.ndarray) else edges
    found = list(plain) if isinstance(plain, Iterable) and not isinstance(plain, str | bytes) else []
    if not _all_numbers(found):
        counted = isinstance(plain, Integral)
        raise InputError(
            "bucket edges",
            expected="log-SNR values such as (-10, -5, 0, 5)",
            got=repr(plain) if isinstance(plain, str | int | float) else kind_of(edges),
            fix="For a count of buckets write nd.Buckets.of(count, schedule)." if counted else None,
        )
    return tuple(float(edge) for edge in found)


def _all_numbers(edges: Sequence[object]) -> bool:
    """Whether there are any and all are numbers, of Python's or numpy's."""
    return bool(edges) and all(isinstance(edge, Real) and not isinstance(edge, bool) for edge in edges)


def _require_edges(edges: tuple[float, ...]) -> None:
    ordered = all(low < high for low, high in pairwise(edges))
    if len(edges) < 2 or not ordered or not all(map(math.isfinite, edges)):
        raise InputError("bucket edges", expected="at least two finite, increasing log-SNR values", got=edges)
