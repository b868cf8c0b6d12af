"""Finished parts of a measurement that several processes make together: the first process reads and writes them for all."""

from __future__ import annotations

from collections.abc import Callable

from ntkdiag.distributed import Processes
from ntkdiag.provenance import KeyedParts
from ntkdiag.provenance.kept_parts import Part


class SharedParts(KeyedParts):
    """The parts of one computation of several processes.

    Args:
        processes: All of them.
        own: The parts that the first process keeps; those of the others are not used.
    """

    def __init__(self, processes: Processes, own: KeyedParts) -> None:
        super().__init__()
        self._processes, self._own = processes, own

    def take(self, name: str, make: Callable[[], Part], fits: Callable[[Part], bool] | None = None) -> Part:
        """As `KeyedParts.take`; called by all processes, and the same in all. `fits` is asked in the first alone."""
        processes, what = self._processes, f"part {name}"
        if processes.rank > 0:
            stored: Part | None = processes.first_says(what, None)
            return make() if stored is None else stored
        made = False

        def together() -> Part:
            nonlocal made
            made = True
            processes.first_says(what, None)
            return make()

        found = self._own.take(name, together, fits)
        if not made:
            processes.first_says(what, found)
        return found
