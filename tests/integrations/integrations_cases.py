"""A weight source that writes down when it is called."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ntkdiag.process import schedules
from ntkdiag.weights import Refresher


class Recorder:
    """Weights of one for a target; remembers the steps it was told of."""

    def __init__(self, target: str = "v") -> None:
        self.target = target
        self.steps: list[int] = []

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)

    def after_step(self, step: int) -> None:
        self.steps.append(step)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = list(state["steps"])


def refresher(target: str = "v", every: int = 2) -> Refresher:
    """A refresher whose scores depend on how often it was asked, so that its history shows in its weights."""
    grid = torch.linspace(-6, 6, 5, dtype=torch.float64)
    calls = [0]

    def score() -> tuple[Tensor, Tensor]:
        calls[0] += 1
        return grid, torch.exp(grid * calls[0] / 10)

    return Refresher(score, target, schedules.cosine(), every=every)
