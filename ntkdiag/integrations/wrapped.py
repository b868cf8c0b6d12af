"""Wrapped: weights in another trainer's clothes, whose steps and checkpoints go to the weights inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ntkdiag.errors import InputError
from ntkdiag.weights import WeightSource, WeightTable


class Wrapped:
    """Base of the integrations.

    Args:
        weights: A weight table, a `Refresher` or another `WeightSource`; or the path of a table.

    Attributes:
        source: The weights inside.

    Raises:
        InputError: none of these.
    """

    def __init__(self, weights: WeightSource | Path | str) -> None:
        source = WeightTable.load(weights) if isinstance(weights, str | Path) else weights
        if not isinstance(source, WeightSource):
            raise InputError(
                "weights",
                expected="a weight table, a Refresher, or the path of a table",
                got=type(source).__name__,
                fix="Make one with ntkdiag.weights.rule(...) or ntkdiag.WeightTable.load(path).",
            )
        self.source: WeightSource = source

    @property
    def target(self) -> str:
        """The target whose squared error is weighted."""
        return self.source.target

    def after_step(self, step: int) -> None:
        """To be called after every optimiser step with the number of steps done; see `WeightSource`."""
        self.source.after_step(step)

    def state_dict(self) -> dict[str, Any]:
        """For the trainer's checkpoint."""
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the trainer's checkpoint; see `WeightSource`."""
        self.source.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """A pickle holds the weights as they are now: what measures them is part of a run, not of a snapshot."""
        return {**self.__dict__, "source": getattr(self.source, "table", self.source)}


def require_target(weights: WeightSource, expected: str, why: str) -> None:
    """Refuse weights for another squared error than the one they would multiply.

    Raises:
        InputError: they are for another target.
    """
    if weights.target != expected:
        raise InputError(
            "weights",
            expected=f"weights for {expected}, {why}",
            got=f"weights for {weights.target}",
            fix=f"Make them with target={expected!r}, or say with loss_target= what the loss is taken of.",
        )
