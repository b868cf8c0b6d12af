"""Buckets: the log-SNR intervals that are compared."""

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

from ntkdiag.errors import InputError, kind_of, require_positive_int
from ntkdiag.process.log_snr import Level, as_level
from ntkdiag.process.schedules.base import Schedule, require_schedule

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
