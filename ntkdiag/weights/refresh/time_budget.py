"""TimeBudget: the share of training time that refreshes may take, counted in training steps.

A refresh that took as long as three steps costs three steps. Whether another one is affordable then depends on the
number of the step and on recorded costs alone, not on the time at which the question is asked, so a run that is
resumed decides as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ntkdiag.errors import InputError

Clock = Callable[[], float]


class TimeBudget:
    """Training time, and the share of it that refreshes may take.

    Args:
        share: In (0, 1): cost of all refreshes over training steps done; None for no limit; then no time is measured.
        clock: Seconds from any origin, never decreasing.

    Raises:
        InputError: a share out of range.
    """

    def __init__(self, share: float | None, clock: Clock) -> None:
        if share is not None and not 0 < share < 1:
            raise InputError(
                "budget", expected="a share of training time between 0 and 1, or None", got=share
            )
        self.share = share
        self._clock = clock
        self._seconds = 0.0
        self._steps = 0
        self._charged = 0.0
        self._mark: tuple[float, int] | None = None

    def tick(self, step: int) -> None:
        """Count the time since the last tick; to be called after every training step."""
        if self.share is None:
            return
        now = self._clock()
        if self._mark is not None:
            self._seconds += now - self._mark[0]
            self._steps += step - self._mark[1]
        self._mark = (now, step)

    def begin(self) -> float:
        """The time at which a refresh begins."""
        return 0.0 if self.share is None else self._clock()

    def end(self, began: float) -> float:
        """The cost in steps of the refresh that began at `began`; its time is not counted as training.

        Returns:
            0 where no time is measured, or no step has been timed yet.
        """
        if self.share is None:
            return 0.0
        now = self._clock()
        if self._mark is not None:
            self._mark = (now, self._mark[1])
        return (now - began) * self._steps / self._seconds if self._seconds > 0 else 0.0

    def charge(self, cost: float) -> None:
        """Count `cost` steps for something other than a refresh."""
        self._charged += cost

    def objection(self, step: int, costs: Iterable[float]) -> str:
        """Why a refresh after `step` is not affordable, or an empty text.

        The first refresh is always affordable, since nobody knows what it will cost; later ones are expected to
        cost what the last one did.

        Args:
            step: Training steps done.
            costs: Of the refreshes made so far, in order.
        """
        paid = [cost for cost in costs if cost > 0]
        if self.share is None or not paid:
            return ""
        would_take = (self._charged + math.fsum(paid) + paid[-1]) / step if step > 0 else math.inf
        if would_take <= self.share:
            return ""
        return f"skipped: refreshes would have taken {would_take:.2%} of training, the budget is {self.share:.2%}"

    def state(self) -> dict[str, Any]:
        """Training time so far, as JSON can hold it."""
        return {"seconds": self._seconds, "steps": self._steps, "charged": self._charged}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._seconds, self._steps = float(state["seconds"]), int(state["steps"])
        self._charged, self._mark = float(state["charged"]), None
