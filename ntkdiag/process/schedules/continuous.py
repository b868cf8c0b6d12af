"""Continuous schedules: cosine, linear in log-SNR, rectified flow, EDM.

Each class is one published path, written as functions of the log-SNR λ. Users call the constructors in
`ntkdiag.schedules`.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_number
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.training_distributions import (
    Distribution,
    HyperbolicSecant,
    Logistic,
    Normal,
    Uniform,
    log_tangent,
)


@dataclass(frozen=True, repr=False)
class Cosine(Schedule):
    """α = cos(πt/2), σ = sin(πt/2), t uniform on [0, 1]: Nichol & Dhariwal 2021 without their offset.

    `time_scale` is the time of pure noise: π/2 counts the angle, as TrigFlow does (Lu & Song 2024).
    """

    name: ClassVar[str] = "cosine"
    time_scale: float = field(default=1.0, compare=False)

    def __post_init__(self) -> None:
        require_number("cosine time_scale", self.time_scale, above=0.0)

    @property
    def time_range(self) -> tuple[float, float]:
        return 0.0, self.time_scale

    @property
    def whole_times(self) -> bool:
        return self.time_scale == 1.0

    @property
    def distribution(self) -> Distribution:
        return HyperbolicSecant()

    def _time(self, log_snr: Tensor) -> Tensor:
        return torch.atan(torch.exp(-log_snr / 2)) * (2 / math.pi * self.time_scale)

    def _log_snr(self, time: Tensor) -> Tensor:
        return -log_tangent((time / self.time_scale).clamp(max=1))

    def _rates(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        speed = math.pi / 2 / self.time_scale
        return -speed * self._sigma(log_snr), speed * self._alpha(log_snr)


@dataclass(frozen=True, repr=False)
class LinearLogSNR(Schedule):
    """Variance preserving, log-SNR falling linearly in t on [0, 1]: Kingma et al. 2021 (VDM)."""

    name: ClassVar[str] = "linear_log_snr"
    log_snr_min: float = -10.0
    log_snr_max: float = 10.0

    def __post_init__(self) -> None:
        if not -math.inf < self.log_snr_min < self.log_snr_max < math.inf:
            raise InputError(
                "linear_log_snr",
                expected="finite log_snr_min < log_snr_max",
                got=f"{self.log_snr_min} and {self.log_snr_max}",
            )

    @property
    def distribution(self) -> Distribution:
        return Uniform(self.log_snr_min, self.log_snr_max)

    def _time(self, log_snr: Tensor) -> Tensor:
        return (self.log_snr_max - log_snr) / (self.log_snr_max - self.log_snr_min)

    def _log_snr(self, time: Tensor) -> Tensor:
        return self.log_snr_max - time * (self.log_snr_max - self.log_snr_min)

    def _rates(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        # On any VP path dα/dλ = ασ²/2 and dσ/dλ = −σα²/2.
        alpha, sigma = self._alpha(log_snr), self._sigma(log_snr)
        speed = self.log_snr_min - self.log_snr_max
        return speed * alpha * sigma**2 / 2, -speed * sigma * alpha**2 / 2


@dataclass(frozen=True, repr=False)
class Flow(Schedule):
    """Rectified flow x = (1 − t) x0 + t ε: Liu et al. 2023, Lipman et al. 2023.

    `logit_mean` and `logit_std` give the logit-normal time of Esser et al. 2024, whose equation 23 is
    `shift`: t → shift·t / (1 + (shift − 1) t), which moves the log-SNR density by −2 ln shift. `time_scale` is the time of
    pure noise: with 1000 the schedule counts 1000 t, as most networks of flow matching are told.
    """

    name: ClassVar[str] = "flow"
    variance_preserving: ClassVar[bool] = False
    logit_mean: float | None = None
    logit_std: float | None = None
    shift: float = 1.0
    time_scale: float = field(default=1.0, compare=False)

    def __post_init__(self) -> None:
        if (self.logit_mean is None) != (self.logit_std is None):
            raise InputError(
                "flow",
                expected="both logit_mean and logit_std, or neither (uniform time)",
                got=f"logit_mean={self.logit_mean}, logit_std={self.logit_std}",
            )
        if self.logit_std is not None:
            require_number("flow logit_std", self.logit_std, above=0.0)
        require_number("flow shift", self.shift, above=0.0)
        require_number("flow time_scale", self.time_scale, above=0.0)

    @property
    def time_range(self) -> tuple[float, float]:
        return 0.0, self.time_scale

    @property
    def distribution(self) -> Distribution:
        offset = -2 * math.log(self.shift)
        if self.logit_mean is None or self.logit_std is None:
            return Logistic(offset)
        return Normal(offset - 2 * self.logit_mean, 2 * self.logit_std)

    def _alpha(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(log_snr / 2)

    def _sigma(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2)

    def _time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2) * self.time_scale

    def _log_snr(self, time: Tensor) -> Tensor:
        unit = time / self.time_scale
        return 2 * (torch.log1p(-unit) - torch.log(unit))

    def _rates(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(log_snr), torch.ones_like(log_snr)


@dataclass(frozen=True, repr=False)
class EDM(Schedule):
    """x = x0 + s ε with ln s normal: Karras et al. 2022. The schedule's time is the noise level s.

    With a `time_scale` it is time_scale · ln s: ¼ as networks of EDM are told, 250 as those of consistency models.
    """

    name: ClassVar[str] = "edm"
    variance_preserving: ClassVar[bool] = False
    sigma_data: float = 0.5
    p_mean: float = -1.2
    p_std: float = 1.2
    time_scale: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        require_number("edm sigma_data", self.sigma_data, above=0.0)
        require_number("edm p_std", self.p_std, above=0.0)
        if self.time_scale is not None:
            require_number("edm time_scale", self.time_scale, above=0.0)

    @property
    def time_range(self) -> tuple[float, float]:
        """All noise levels, or the logarithms of those that a float can hold."""
        if self.time_scale is None:
            return 0.0, math.inf
        return self.time_scale * math.log(sys.float_info.min), self.time_scale * math.log(sys.float_info.max)

    @property
    def whole_times(self) -> bool:
        return self.time_scale is None

    @property
    def distribution(self) -> Distribution:
        return Normal(-2 * self.p_mean, 2 * self.p_std)

    def _alpha(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)

    def _sigma(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr / 2)

    def _time(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr / 2) if self.time_scale is None else log_snr * (-self.time_scale / 2)

    def _log_snr(self, time: Tensor) -> Tensor:
        return -2 * torch.log(time) if self.time_scale is None else time * (-2 / self.time_scale)

    def _rates(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(log_snr), torch.ones_like(log_snr)
