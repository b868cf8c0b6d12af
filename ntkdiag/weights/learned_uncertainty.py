"""LearnedUncertainty: weights e^{-u(log-SNR)}, with u learned from the losses that training sees, as EDM2 does.

Every step descends E[e^{-u} L + u], whose minimum is e^u = E[L]: the weighted loss comes to be equal at all noise levels,
so that no level has a larger share of the gradient only because its loss is larger. Source: Karras et al. 2024, "Analyzing
and improving the training dynamics of diffusion models", arXiv 2312.02696. A fixed weight before it, such as
EDM's, would change nothing at the minimum.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_number, require_positive_int
from ntkdiag.process.schedules.base import Schedule, require_schedule
from ntkdiag.process.target import target_name
from ntkdiag.weights.tables.weight_table import WeightTable

# Quantiles of the training density over which the mean weight is 1.
_GRID = 256
# Beyond this log-SNR u is as at this end, so that infinite levels have a weight.
_WIDEST = 40.0
_MOMENTS = ("exp_avg", "exp_avg_sq")


class LearnedUncertainty:
    """A `WeightSource` that learns from losses: e^{-u}, divided by its mean under the schedule's density.

    u is linear in Fourier features √2 cos(2π(f c + φ)) of c = ln(σ/α)/4, EDM's noise argument; f is normal, φ uniform. It
    starts at 0, weight 1, and is trained by Adam of its own. EDM2 keeps the coefficients at a fixed norm and leaves the mean
    of the weights free; here it is 1, so that the learning rate means what it does for other weights. It computes on the
    CPU, so that a step on another device waits for it. In distributed training it learns from what each process shows it:
    the reference trainer shows all the whole batch.

    Args:
        target: The target whose squared error is weighted.
        schedule: The process trained on.
        features: Number of Fourier features; 128 in EDM2.
        learning_rate: Of Adam for u.
        seed: Of f and φ.

    Raises:
        InputError: a setting out of range.

    Example:
        >>> weights = nd.weights.LearnedUncertainty("v", nd.schedules.cosine())
        >>> weights(torch.tensor([-3.0, 0.0, 3.0]))
        tensor([1., 1., 1.])
        >>> levels = torch.linspace(-6, 6, 64)
        >>> for step in range(200):  # the loss is e² times larger where noise is high
        ...     weights.observe(levels, torch.where(levels < 0, 2.0, 0.0).exp())
        >>> bool(weights(torch.tensor([3.0])) > 3 * weights(torch.tensor([-3.0])))
        True
    """

    def __init__(
        self,
        target: str,
        schedule: Schedule,
        *,
        features: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        require_schedule("schedule", schedule)
        self.target = target_name(target)
        self.schedule = schedule
        count = require_positive_int("features", features)
        require_number("learning_rate", learning_rate, above=0.0)
        generator = torch.Generator().manual_seed(seed)
        self._frequency = torch.randn(count, generator=generator, dtype=torch.float64)
        self._phase = torch.rand(count, generator=generator, dtype=torch.float64)
        self._coefficients = torch.zeros(count, dtype=torch.float64, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._coefficients], lr=learning_rate, betas=(0.9, 0.99))
        self._settings = {
            "target": self.target,
            "schedule": schedule.describe(),
            "features": count,
            "learning_rate": learning_rate,
            "seed": seed,
        }
        shares = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
        # Quantiles beyond the ends, as of a step of SNR 0, fall together.
        levels = schedule.quantile(shares).clamp(-_WIDEST, _WIDEST)
        self._levels, self._counts = levels.unique(return_counts=True)
        self._grid = self._features(self._levels)

    @torch.no_grad()
    def __call__(self, log_snr: Tensor) -> Tensor:
        """Weights > 0 for log-SNR of any shape, in its dtype and on its device."""
        level = log_snr.detach().double().cpu()
        mean = (self._counts * torch.exp(-(self._grid @ self._coefficients))).sum() / _GRID
        weight: Tensor = torch.exp(-(self._features(level) @ self._coefficients)) / mean
        return weight.to(log_snr)

    @property
    def table(self) -> WeightTable:
        """The weights as they are now, at the quantiles of the training density."""
        return WeightTable(
            self._levels, self(self._levels), self.target, name="learned", meta={"source": "learned"}
        )

    @torch.no_grad()
    def log_uncertainty(self, log_snr: Tensor) -> Tensor:
        """u for log-SNR of any shape, float64 on the CPU; at its optimum ln E[loss]."""
        u: Tensor = self._features(log_snr.detach().double().cpu()) @ self._coefficients
        return u

    def observe(self, log_snr: Tensor, losses: Tensor) -> None:
        """Do one step on E[e^{-u} L + u].

        Args:
            log_snr: Noise levels of a batch [N].
            losses: Its unweighted losses [N].
        """
        level, loss = (part.detach().double().cpu() for part in (log_snr, losses))
        u = self._features(level) @ self._coefficients
        self._optimizer.zero_grad()
        (torch.exp(-u) * loss + u).mean().backward()
        self._optimizer.step()

    def after_step(self, step: int) -> None:
        """Do nothing: it learns in `observe`."""

    def state_dict(self) -> dict[str, Any]:
        """Settings, coefficients and Adam's moments, as JSON can hold them."""
        state = self._optimizer.state.get(self._coefficients, {})
        return {
            "settings": self._settings,
            "coefficients": self._coefficients.tolist(),
            "steps": float(state["step"]) if state else 0.0,
            **{name: state[name].tolist() if state else [] for name in _MOMENTS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as the weights that wrote `state`.

        Raises:
            InputError: they had other settings, or the state is not whole.
        """
        if state.get("settings") != self._settings:
            raise InputError(
                "learned weights in the checkpoint",
                expected=f"the settings {self._settings}",
                got=state.get("settings"),
                fix="Resume with the same settings, or start a new run.",
            )
        names = ("coefficients", *_MOMENTS) if state.get("steps") else ("coefficients",)
        try:
            tensors = {name: torch.tensor(state[name], dtype=torch.float64) for name in names}
            steps = float(state["steps"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "learned weights in the checkpoint", expected="a whole state", got=repr(error)
            ) from error
        for name, tensor in tensors.items():
            if tensor.shape != self._coefficients.shape or not torch.isfinite(tensor).all():
                raise InputError(
                    f"{name} of the learned weights in the checkpoint",
                    expected=f"{len(self._coefficients)} finite numbers",
                    got=f"shape {tuple(tensor.shape)}",
                )
        with torch.no_grad():
            self._coefficients.copy_(tensors["coefficients"])
        own = {name: tensors[name] for name in _MOMENTS if name in tensors}
        groups = self._optimizer.state_dict()["param_groups"]
        restored = {0: {"step": torch.tensor(steps), **own}} if own else {}
        self._optimizer.load_state_dict({"state": restored, "param_groups": groups})

    def _features(self, level: Tensor) -> Tensor:
        """[...] → [..., features]."""
        argument = -level.clamp(-_WIDEST, _WIDEST) / 8
        return math.sqrt(2) * torch.cos(2 * math.pi * (argument[..., None] * self._frequency + self._phase))
