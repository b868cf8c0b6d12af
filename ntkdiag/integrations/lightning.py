"""Weights in a Lightning module, kept up to date and in the checkpoint by a callback.

    module.weights = weights                                   # a WeightTable or a Refresher
    loss = (self.weights(log_snr) * losses).mean()             # in training_step
    trainer = Trainer(callbacks=[WeightCallback(weights)])

Needs `lightning`, or `pytorch_lightning` under its older name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.integrations.wrapped import Wrapped
from ntkdiag.weights import WeightSource

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback


class WeightCallback(Wrapped, Callback):
    """Calls the weights after every optimiser step, and puts their state into the checkpoint.

    Args:
        weights: The same object that the module calls; or the path of a table, which the module then calls as
            `callback.source`.

    Example:
        >>> callback = WeightCallback(nd.weights.rule("erd", "v"))  # trainer = Trainer(callbacks=[callback])
        >>> callback.source(torch.zeros(4)).shape
        torch.Size([4])
    """

    def __init__(self, weights: WeightSource | Path | str) -> None:
        super().__init__(weights)
        self._step = 0

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """Pass the step on if this batch ended one; with gradient accumulation not every batch does."""
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self.after_step(self._step)

    def state_dict(self) -> dict[str, Any]:
        """Steps done, and the state of the weights."""
        return {"step": self._step, "weights": self.source.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; see `WeightSource`."""
        self.source.load_state_dict(state["weights"])
        self._step = int(state["step"])
