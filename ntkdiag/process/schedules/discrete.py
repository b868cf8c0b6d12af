"""Discrete schedules, such as DDPM's: variance preserving, given by the log-SNR of every step.

Training draws steps alone; between two steps, time and log-SNR are interpolated.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_int, require_number
from ntkdiag.process.log_snr import vp_alpha, vp_sigma
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.training_distributions import Distribution, Steps, entries
from ntkdiag.provenance import digest, jsonable

# Steps of a lower log-SNR are pure noise to any network (tuned here), so their order carries no meaning.
PURE_NOISE = -14.0

# A thousand times the usual number. A file that asks for more would only exhaust the memory of its reader.
_MOST_STEPS = 1_000_000


@dataclass(frozen=True, repr=False)
class TableSchedule(Schedule):
    """A variance-preserving schedule of finitely many steps.

    The schedule's time is the index of the step as a float; step 0 has the least noise. Log-SNR is linear in
    time between steps and constant beyond the ends. If the last step has SNR 0, α (not log-SNR) is linear in
    the last interval. Where the last step lies above the one before it (both pure noise), a log-SNR has its time among the
    others.
    """

    discrete: ClassVar[bool] = True

    @property
    @abstractmethod
    def levels(self) -> tuple[float, ...]:
        """Log-SNR of every step, strictly decreasing; among steps of pure noise the last may lie above the one before."""

    @property
    def time_range(self) -> tuple[float, float]:
        """First and last step."""
        return 0.0, len(self.levels) - 1.0

    @cached_property
    def distribution(self) -> Distribution:
        """Equal mass on every step."""
        return Steps(self.levels)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw log-SNR values of steps, each step equally likely; see `Schedule.sample`."""
        require_int("count", count, at_least=0)
        size = (count,)
        step = torch.randint(len(self.levels), size, generator=generator, device=generator.device)
        return self._table.to(step.device)[step]

    def _time(self, log_snr: Tensor) -> Tensor:
        step, above, below = self._interval(log_snr)
        linear = (above - log_snr) / (above - below)
        ending = 1 - vp_alpha(log_snr) / vp_alpha(above)
        return step + torch.where(below.isinf(), ending, linear).clamp(0, 1)

    def _log_snr(self, time: Tensor) -> Tensor:
        table = self._table.to(time)
        step = time.floor().long().clamp(0, len(table) - 2)
        above, below = entries(table, step), entries(table, step + 1)
        part = (time - step).clamp(0, 1)
        alpha_squared = (vp_alpha(above) * (1 - part)) ** 2
        ending = torch.where(part == 0, above, torch.log(alpha_squared) - torch.log1p(-alpha_squared))
        return torch.where(below.isinf(), ending, above + part * (below - above))

    def _rates(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        _, above, below = self._interval(log_snr)
        alpha, sigma = vp_alpha(log_snr), vp_sigma(log_snr)
        # dα/dt = (ασ²/2) dλ/dt where λ is linear in t; where α is, its own slope. α² + σ² = 1 gives dσ/dt.
        linear = alpha * sigma**2 * (below - above) / 2
        alpha_rate = torch.where(below.isinf(), -vp_alpha(above), linear)
        return alpha_rate, -alpha / sigma * alpha_rate

    def _interval(self, log_snr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each value: the index of the step before it, that step's log-SNR, and the next step's log-SNR."""
        table = self._decreasing.to(log_snr)
        step = torch.searchsorted(-table, -log_snr.contiguous(), right=True) - 1
        step = step.clamp(0, len(table) - 2)
        return step, entries(table, step), entries(table, step + 1)

    @property
    def _decreasing(self) -> Tensor:
        """The table without a last step that lies above the one before it."""
        return self._table if self.levels[-1] < self.levels[-2] else self._table[:-1]

    @cached_property
    def _table(self) -> Tensor:
        return torch.tensor(self.levels, dtype=torch.float64)


@dataclass(frozen=True, repr=False)
class LinearBeta(TableSchedule):
    """β rising linearly over the steps, ᾱ_t = Π (1 − β): Ho et al. 2020 (DDPM)."""

    name: ClassVar[str] = "linear_beta"
    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        if require_int(f"{self.name} steps", self.steps, at_least=2) > _MOST_STEPS:
            raise InputError(f"{self.name} steps", expected=f"at most {_MOST_STEPS:,}", got=self.steps)
        for label, value in (("beta_start", self.beta_start), ("beta_end", self.beta_end)):
            require_number(f"{self.name} {label}", value, above=0.0, below=1.0)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        # ln ᾱ and ln(1 − ᾱ) without ever rounding ᾱ to 1.
        log_alpha_bar = torch.log1p(-self._betas()).cumsum(0)
        return tuple((log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))).tolist())

    def _betas(self) -> Tensor:
        return torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)


@dataclass(frozen=True, repr=False)
class ScaledLinearBeta(LinearBeta):
    """√β rising linearly over the steps: Rombach et al. 2022 (latent diffusion)."""

    name: ClassVar[str] = "scaled_linear_beta"
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def _betas(self) -> Tensor:
        ends = math.sqrt(self.beta_start), math.sqrt(self.beta_end)
        return torch.linspace(*ends, self.steps, dtype=torch.float64).square()


@dataclass(frozen=True, repr=False)
class LogSNRTable(TableSchedule):
    """A schedule whose log-SNR is given for every step.

    Args:
        steps: Log-SNR of every step, strictly decreasing; only the last may be −inf. Schedulers that stand in a small SNR
            for zero may put the last step above the one before it, where both are pure noise.
    """

    name: ClassVar[str] = "from_table"
    steps: tuple[float, ...]

    def __post_init__(self) -> None:
        for step, (above, below) in enumerate(pairwise(self.steps)):
            stands_in = step == len(self.steps) - 2 and max(above, below) < PURE_NOISE
            if not (below < above or stands_in):
                raise InputError(
                    "log-SNR table",
                    expected="strictly decreasing log-SNR",
                    got=f"{above} at step {step}, then {below}",
                    fix="Order the steps from clean to noisy, and build the table in float32 or wider.",
                )
        finite = [level for level in self.steps if math.isfinite(level)]
        ends_in_zero_snr = bool(self.steps) and self.steps[-1] == -math.inf
        if len(finite) + ends_in_zero_snr != len(self.steps) or len(finite) < 2:
            raise InputError(
                "log-SNR table",
                expected="at least two finite entries, and −inf nowhere but in the last",
                got=f"{len(self.steps)} entries, {len(finite)} of them finite",
            )

    @property
    def levels(self) -> tuple[float, ...]:
        return self.steps

    def describe(self) -> dict[str, Any]:
        """Name and log-SNR of the steps; see `Schedule.describe`."""
        parameters = super().describe()
        return {"name": parameters["name"], "log_snr": parameters["steps"]}

    def __repr__(self) -> str:
        return f"{self.name}({len(self.steps)} steps, log-SNR {self.steps[0]:g} to {self.steps[-1]:g})"


def without_steps(description: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule's description as a record may keep it: in place of the steps their number, ends and SHA-256.

    Args:
        description: What `Schedule.describe` gave.

    Returns:
        The description itself, for a schedule without a list of steps. What stands there instead of the steps tells two
        schedules apart, but does not make them again.
    """
    levels = description.get("log_snr")
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        return dict(description)
    steps = [float(level) for level in levels]
    kept = {"steps": len(steps), "first": steps[0], "last": steps[-1]} if steps else {"steps": 0}
    sha = digest(torch.tensor(steps, dtype=torch.float64))
    return {
        **{key: value for key, value in description.items() if key != "log_snr"},
        **jsonable(kept),
        "digest": sha,
    }


def log_snr_of_steps(schedule: Schedule) -> Tensor:
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
