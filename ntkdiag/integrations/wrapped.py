"""Wrapped: the base of the integrations, which passes the steps and checkpoints of a trainer on to the weights."""

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
        source: The weights.

    Raises:
        InputError: something else.
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
        """Call it after every optimiser step with the number of steps done; see `WeightSource`."""
        self.source.after_step(step)

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint of the trainer."""
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from the checkpoint of the trainer; see `WeightSource`."""
        self.source.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the current weights as a table, without the function that measures them."""
        return {**self.__dict__, "source": getattr(self.source, "table", self.source)}


def require_target(weights: WeightSource, expected: str, why: str) -> None:
    """Refuse weights that are for another target than the squared error they would multiply.

    Raises:
        InputError: they are for another target.
    """
    if weights.target != expected:
        raise InputError(
            "weights",
            expected=f"weights for {expected}, {why}",
            got=f"weights for {weights.target}",
            fix=f"Make them with target={expected!r}, or give the target of the loss as loss_target=.",
        )
