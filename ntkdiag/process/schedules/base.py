"""Schedule: how a diffusion process mixes data and noise, as functions of the log-SNR.

x = α x0 + σ ε, SNR = α²/σ², log-SNR = ln SNR. Every schedule gives α, σ, its own time and its training density
at a log-SNR, which is the one axis that all schedules share.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntkdiag.errors import InputError, kind_of, require_int
from ntkdiag.process.log_snr import Level, apply_wide, as_level, expand, vp_alpha, vp_sigma, widen
from ntkdiag.process.schedules.training_distributions import Distribution
from ntkdiag.provenance import jsonable


@dataclass(frozen=True, repr=False)
class Schedule(ABC):
    """A noising path and the density of log-SNR that training samples from.

    All functions take a number or a floating tensor of any shape and return a tensor of that shape and
    dtype (float64 for numbers); half precision is computed in float32. Log-SNR is in nats.

    Subclasses are frozen dataclasses whose fields are the arguments of their constructor in
    `ntkdiag.schedules`. They define `_alpha` and `_sigma` unless they are variance preserving. Two schedules are equal if
    they are the same process, whatever unit their time is counted in.

    Attributes:
        name: Name of the constructor.
        variance_preserving: Whether α² + σ² = 1.
        discrete: Whether training draws from a finite list of steps.
        predicted: Targets that networks of the scheduler it was read from can have, by its `prediction_type`; empty where
            nothing is known. `dataclasses.replace(schedule, predicted=())` forgets it.

    Example:
        >>> schedule = nd.schedules.cosine()
        >>> round(schedule.time(0.0).item(), 6)  # log-SNR 0 is at t = 1/2
        0.5
        >>> round(schedule.alpha(2.0).item() ** 2 + schedule.sigma(2.0).item() ** 2, 6)
        1.0
    """

    name: ClassVar[str]
    variance_preserving: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    predicted: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False, kw_only=True)

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the data that the F target assumes: that of EDM, else 1 (then F is −v)."""
        return 1.0

    @property
    @abstractmethod
    def distribution(self) -> Distribution:
        """Distribution of log-SNR in training."""

    def alpha(self, log_snr: Level) -> Tensor:
        """Coefficient of the data, α ≥ 0."""
        return apply_wide(self._alpha, log_snr)

    def sigma(self, log_snr: Level) -> Tensor:
        """Coefficient of the noise, σ ≥ 0."""
        return apply_wide(self._sigma, log_snr)

    @property
    def time_range(self) -> tuple[float, float]:
        """Earliest and latest time: (0, 1) unless the schedule counts otherwise."""
        return 0.0, 1.0

    @property
    def whole_times(self) -> bool:
        """Whether a whole number can be meant as a time: not where time is a logarithm or an angle."""
        return True

    def time(self, log_snr: Level) -> Tensor:
        """The schedule's own time, which increases with noise: t in [0, 1], a step index, or EDM's noise level s.

        A schedule that was read from a scheduler counts as that scheduler does: see `time_range` and
        `ntkdiag.schedules.from_diffusers`.
        """
        return apply_wide(self._time, log_snr)

    def log_snr(self, time: Level) -> Tensor:
        """Log-SNR at the schedule's own time; the inverse of `time`."""
        return apply_wide(self._log_snr, time)

    def rates(self, log_snr: Level) -> tuple[Tensor, Tensor]:
        """Derivatives (dα/dt, dσ/dt), with t a step, an angle, flow's t in [0, 1], or EDM's noise level s.

        The last two in whatever unit `time` counts: a network of flow matching predicts ε − x0, though it is told 1000 t.
        """
        level = as_level(log_snr)
        alpha_rate, sigma_rate = self._rates(widen(level))
        return alpha_rate.to(level.dtype), sigma_rate.to(level.dtype)

    @property
    def support(self) -> tuple[float, float]:
        """Lowest and highest log-SNR that training draws; either may be infinite."""
        return self.distribution.support

    def density(self, log_snr: Level) -> Tensor:
        """Training density per unit of log-SNR; integrates to 1 over the support."""
        return apply_wide(self.distribution.density, log_snr)

    def cdf(self, log_snr: Level) -> Tensor:
        """Share of training below a log-SNR, in [0, 1]."""
        return apply_wide(self.distribution.cdf, log_snr)

    def quantile(self, probability: Level) -> Tensor:
        """Log-SNR below which a share `probability` of training lies; the inverse of `cdf`."""
        return apply_wide(self.distribution.quantile, probability)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw log-SNR values as training does.

        Args:
            count: Number of values.
            generator: Random generator; the result is on its device.

        Returns:
            Tensor [count], float64.
        """
        require_int("count", count, at_least=0)
        uniform = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
        # torch.rand includes 0, which an unbounded schedule would map to −inf.
        return self.quantile(uniform.clamp(min=2.0**-54))

    def diffuse(self, x0: Tensor, epsilon: Tensor, log_snr: Level) -> Tensor:
        """Noisy samples x = α x0 + σ ε.

        Args:
            x0: Data [N, *shape].
            epsilon: Standard normal noise [N, *shape].
            log_snr: One number or [N].

        Returns:
            [N, *shape] in the dtype of `x0`.

        Raises:
            InputError: shapes that do not match.
        """
        if x0.shape != epsilon.shape:
            raise InputError(
                "epsilon", expected=f"the shape {tuple(x0.shape)} of x0", got=tuple(epsilon.shape)
            )
        level = widen(as_level(log_snr))
        alpha, sigma = self._alpha(level), self._sigma(level)
        return expand(alpha, x0) * x0 + expand(sigma, x0) * epsilon

    def describe(self) -> dict[str, Any]:
        """Name and parameters as JSON can hold them; `schedules.named(**describe())` gives this schedule again.

        The unit of time is left out where it is the usual one.
        """
        return {
            "name": self.name,
            **{
                field.name: jsonable(getattr(self, field.name))
                for field in dataclasses.fields(self)
                if field.compare or (field.repr and getattr(self, field.name) != field.default)
            },
        }

    def __repr__(self) -> str:
        arguments = [
            f"{field.name}={_short(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if field.repr and getattr(self, field.name) != field.default
        ]
        return f"{self.name}({', '.join(arguments)})"

    def _alpha(self, log_snr: Tensor) -> Tensor:
        return vp_alpha(log_snr)

    def _sigma(self, log_snr: Tensor) -> Tensor:
        return vp_sigma(log_snr)

    @abstractmethod
    def _time(self, log_snr: Tensor) -> Tensor: ...

    @abstractmethod
    def _log_snr(self, time: Tensor) -> Tensor: ...

    @abstractmethod
    def _rates(self, log_snr: Tensor) -> tuple[Tensor, Tensor]: ...


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def require_schedule(what: str, got: object) -> None:
    """Refuse anything but a `Schedule`; the error says how to make one of what came.

    Raises:
        InputError: `got` is no Schedule.
    """
    if isinstance(got, Schedule):
        return
    if callable(got) and not isinstance(got, type):
        fix = f"Call it: nd.schedules.{getattr(got, '__name__', 'cosine')}()."
    else:
        fix = "Read a scheduler of the diffusers library with nd.schedules.from_diffusers(scheduler)."
    raise InputError(
        what,
        expected="a schedule such as nd.schedules.cosine()",
        got=repr(got) if isinstance(got, str) else kind_of(got),
        fix=fix,
    )
