"""Distributions of log-SNR: which noise levels training draws, and how often.

If training draws the schedule's time t from p(t), the log-SNR λ has density p(λ) = −(dt/dλ) p(t). This file holds
the closed forms of the few distributions that published schedules lead to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


def entries(table: Tensor, index: Tensor) -> Tensor:
    """table[index] for an index of any shape, also inside `torch.vmap`, where a plain index needs its value."""
    return table.gather(0, index.reshape(-1)).reshape(index.shape)


class Distribution(Protocol):
    """A distribution of log-SNR; its functions take floating tensors and keep shape and dtype."""

    @property
    def support(self) -> tuple[float, float]:
        """Lowest and highest value."""
        ...

    def density(self, value: Tensor) -> Tensor:
        """Probability per unit."""
        ...

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of at most `value`."""
        ...

    def quantile(self, probability: Tensor) -> Tensor:
        """Inverse of `cdf`."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Uniform distribution between `low` and `high`."""

    low: float
    high: float

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def density(self, value: Tensor) -> Tensor:
        inside = (value >= self.low) & (value <= self.high)
        return inside.to(value.dtype) / (self.high - self.low)

    def cdf(self, value: Tensor) -> Tensor:
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def quantile(self, probability: Tensor) -> Tensor:
        return self.low + probability * (self.high - self.low)


@dataclass(frozen=True)
class Normal:
    """Normal distribution."""

    mean: float
    std: float

    @property
    def support(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def density(self, value: Tensor) -> Tensor:
        return torch.exp(-(((value - self.mean) / self.std) ** 2) / 2) / (self.std * math.sqrt(2 * math.pi))

    def cdf(self, value: Tensor) -> Tensor:
        probability: Tensor = torch.special.ndtr((value - self.mean) / self.std)
        return probability

    def quantile(self, probability: Tensor) -> Tensor:
        value: Tensor = self.mean + self.std * torch.special.ndtri(probability)
        return value


@dataclass(frozen=True)
class Logistic:
    """Logistic distribution of scale 2, density sech²((λ − mean)/4)/8: that of mean − 2 logit(t) for uniform t."""

    mean: float = 0.0

    @property
    def support(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def density(self, value: Tensor) -> Tensor:
        half = (value - self.mean) / 2
        return torch.sigmoid(half) * torch.sigmoid(-half) / 2

    def cdf(self, value: Tensor) -> Tensor:
        return torch.sigmoid((value - self.mean) / 2)

    def quantile(self, probability: Tensor) -> Tensor:
        return self.mean + 2 * torch.logit(probability)


@dataclass(frozen=True)
class HyperbolicSecant:
    """Hyperbolic secant distribution, density sech(λ/2)/(2π): that of −2 ln tan(πt/2) for uniform t."""

    @property
    def support(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def density(self, value: Tensor) -> Tensor:
        return 1 / (2 * math.pi * torch.cosh(value / 2))

    def cdf(self, value: Tensor) -> Tensor:
        return torch.atan(torch.exp(value / 2)) * (2 / math.pi)

    def quantile(self, probability: Tensor) -> Tensor:
        return log_tangent(probability)


def log_tangent(turn: Tensor) -> Tensor:
    """2 ln tan(π turn/2) for turn in [0, 1], exactly −inf at 0 and inf at 1."""
    # tan(π/2) is finite in floating point, so above one half the value at 1 − turn, which is exact, is mirrored.
    near = torch.minimum(turn, 1 - turn)
    return (2 * torch.log(torch.tan(near * (math.pi / 2)))).copysign(turn - 0.5)


@dataclass(frozen=True)
class Steps:
    """Equal mass on every step, spread evenly over a cell that ends halfway to the neighbouring steps.

    The first and the last cell extend as far outwards as inwards. A last step of log-SNR −inf (zero terminal
    SNR) is a point mass: `density` leaves it out, `cdf` counts it, `quantile` returns −inf for it.

    Args:
        levels: Log-SNR of every step; the last may be −inf.
    """

    levels: tuple[float, ...] = field(repr=False)

    @property
    def support(self) -> tuple[float, float]:
        low = -math.inf if self._atom else float(self._edges[0])
        return low, float(self._edges[-1])

    def density(self, value: Tensor) -> Tensor:
        edges = self._edges.to(value)
        cell = self._cell(edges, value)
        inside = (value >= edges[0]) & (value <= edges[-1])
        mass = inside.to(value.dtype) / len(self.levels)
        return mass / (entries(edges, cell + 1) - entries(edges, cell))

    def cdf(self, value: Tensor) -> Tensor:
        edges = self._edges.to(value)
        cell = self._cell(edges, value)
        low, high = entries(edges, cell), entries(edges, cell + 1)
        within = ((value - low) / (high - low)).clamp(0, 1)
        return self._atom + (cell + within) / len(self.levels)

    def quantile(self, probability: Tensor) -> Tensor:
        edges = self._edges.to(probability)
        position = (probability - self._atom) * len(self.levels)
        cell = position.floor().long().clamp(0, len(edges) - 2)
        within = (position - cell).clamp(0, 1)
        low, high = entries(edges, cell), entries(edges, cell + 1)
        value = low + within * (high - low)
        in_atom = (probability <= self._atom) & (self._atom > 0)
        return torch.where(in_atom, -math.inf, value)

    @property
    def _atom(self) -> float:
        """Mass at −inf."""
        return 1 / len(self.levels) if math.isinf(self.levels[-1]) else 0.0

    @cached_property
    def _edges(self) -> Tensor:
        """Boundaries of the cells of the finite steps, ascending."""
        finite = sorted(level for level in self.levels if math.isfinite(level))
        levels = torch.tensor(finite, dtype=torch.float64)
        middle = (levels[1:] + levels[:-1]) / 2
        first, last = 2 * levels[0] - middle[0], 2 * levels[-1] - middle[-1]
        return torch.cat([first[None], middle, last[None]])

    @staticmethod
    def _cell(edges: Tensor, value: Tensor) -> Tensor:
        return (torch.searchsorted(edges, value.contiguous(), right=True) - 1).clamp(0, len(edges) - 2)
