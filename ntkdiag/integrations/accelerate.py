"""Weights in a loop around an `accelerate.Accelerator`.

    weights = LoopWeights(accelerator, weights)                # once, before accelerator.load_state
    loss = (weights(log_snr) * losses).mean()                  # in place of losses.mean()
    weights.step()                                             # after optimizer.step()

They count optimiser steps, not batches, so gradient accumulation works unchanged, and `accelerator.save_state` saves
their state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ntkdiag.integrations.wrapped import Wrapped
from ntkdiag.weights import WeightSource


class LoopWeights(Wrapped):
    """Weights that follow the steps and checkpoints of an accelerator.

    Args:
        accelerator: Its checkpoints will contain the state of the weights.
        weights: A `WeightSource`, or the path of a table.

    Attributes:
        steps: Optimiser steps done.

    Example:
        >>> from accelerate import Accelerator
        >>> weights = LoopWeights(Accelerator(cpu=True), nd.weights.rule("erd", "v"))
        >>> weights.step()  # after optimizer.step()
        >>> weights(torch.zeros(4)).shape, weights.steps
        (torch.Size([4]), 1)
    """

    def __init__(self, accelerator: Any, weights: WeightSource | Path | str) -> None:
        super().__init__(weights)
        self.steps = 0
        self._accelerator = accelerator
        accelerator.register_for_checkpointing(self)

    def __call__(self, log_snr: Tensor) -> Tensor:
        """Weights ≥ 0 for log-SNR of any shape, in its dtype and on its device."""
        return self.source(log_snr)

    def step(self) -> None:
        """Call it after every `optimizer.step()`; steps that accelerate skips while it accumulates are not counted."""
        if self._accelerator.sync_gradients:
            self.steps += 1
            self.after_step(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Steps done, and the state of the weights."""
        return {"steps": self.steps, "weights": self.source.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; see `WeightSource`."""
        self.source.load_state_dict(state["weights"])
        self.steps = int(state["steps"])
