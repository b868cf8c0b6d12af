"""DriftMonitor: a cheap look at the network between refreshes, which calls for one when what it shows has moved."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntkdiag.errors import MeasurementError
from ntkdiag.weights.refresh import ranks
from ntkdiag.weights.refresh.ranks import RankMeasurement

# () → numbers that move when the score would, such as the kernel's largest eigenvalues; any shape
MonitorFunction = Callable[[], Tensor]


class DriftMonitor:
    """A monitor, and what it showed at the last refresh.

    Args:
        monitor: None: nothing ever moves.
        change: Relative change ‖now − then‖/‖then‖ beyond which it has moved.
    """

    def __init__(self, monitor: MonitorFunction | None, change: float) -> None:
        self.monitor = monitor
        self.change = change
        self._then: Tensor | None = None

    def look(self) -> tuple[float, ...]:
        """What the monitor shows on this process; whatever it raises is passed on."""
        if self.monitor is None:
            return ()
        shown = torch.as_tensor(self.monitor()).detach().cpu().double()
        return tuple(shown.flatten().tolist())

    def refreshed(self, shown: Tensor) -> None:
        """A refresh was made; all processes saw `shown` on average."""
        self._then = shown if self.monitor is not None else None

    def moved(self, outcomes: list[RankMeasurement]) -> bool:
        """Whether the monitor calls for a refresh; the first look is what later ones are compared with.

        Args:
            outcomes: What every process saw.

        Raises:
            MeasurementError: it failed on some process, or showed a number that is not finite.
        """
        failure = ranks.failure(outcomes)
        if failure:
            raise MeasurementError(failure)
        now = ranks.mean(outcomes, 0)
        if not torch.isfinite(now).all():
            raise MeasurementError("a number that is not finite")
        if self._then is None or self._then.shape != now.shape:
            self._then = now
            return False
        norm = torch.linalg.vector_norm
        return bool(norm(now - self._then) > self.change * norm(self._then))

    def state(self) -> list[float] | None:
        """What it showed at the last refresh, JSON-able."""
        return None if self._then is None else self._then.tolist()

    def load(self, state: list[float] | None) -> None:
        """Go on from a state."""
        self._then = None if state is None else torch.tensor(state, dtype=torch.float64)
