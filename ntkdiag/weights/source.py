"""What training is handed: a function from log-SNR to weights that may change between steps.

A `WeightTable` is one that never changes; a `Refresher` is one that measures again now and then.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class WeightSource(Protocol):
    """Loss weights for one target."""

    target: str

    def __call__(self, log_snr: Tensor) -> Tensor:
        """Weights ≥ 0 for log-SNR of any shape, in its dtype and on its device."""

    def after_step(self, step: int) -> None:
        """Called once after every optimiser step with the number of steps done so far (1, 2, …)."""

    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint needs to go on identically; JSON-able."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; refuses one that belongs to other weights."""
