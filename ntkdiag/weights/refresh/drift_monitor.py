"""DriftMonitor: a cheap measurement between refreshes, which asks for an early refresh when it has changed."""

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
    """A function that is measured cheaply, and its values at the last refresh.

    Args:
        monitor: The function; None never asks for a refresh.
        change: Relative change ‖now − at the last refresh‖/‖at the last refresh‖ that asks for one.
    """

    def __init__(self, monitor: MonitorFunction | None, change: float) -> None:
        self.monitor = monitor
        self.change = change
        self._reference: Tensor | None = None

    def measure(self) -> tuple[float, ...]:
        """The values on this process, none without a monitor; an error of the monitor is raised."""
        if self.monitor is None:
            return ()
        values = torch.as_tensor(self.monitor()).detach().cpu().double()
        return tuple(values.flatten().tolist())

    def refreshed(self, values: Tensor) -> None:
        """Compare with `values`, the mean over processes, from now on: a refresh was made."""
        self._reference = values if self.monitor is not None else None

    def moved(self, measured: list[RankMeasurement]) -> bool:
        """Whether the values have changed enough to ask for a refresh; the first values are only stored.

        Args:
            measured: The values of every process.

        Raises:
            MeasurementError: the monitor failed on some process, or a value is not finite.
        """
        failure = ranks.first_error(measured)
        if failure:
            raise MeasurementError(failure)
        now = ranks.mean(measured, 0)
        if not torch.isfinite(now).all():
            raise MeasurementError("a number that is not finite")
        if self._reference is None or self._reference.shape != now.shape:
            self._reference = now
            return False
        norm = torch.linalg.vector_norm
        return bool(norm(now - self._reference) > self.change * norm(self._reference))

    def state(self) -> list[float] | None:
        """The values at the last refresh, as JSON can hold them."""
        return None if self._reference is None else self._reference.tolist()

    def load(self, state: list[float] | None) -> None:
        """Restore what `state` returned."""
        self._reference = None if state is None else torch.tensor(state, dtype=torch.float64)
