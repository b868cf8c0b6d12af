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
        """As `KeyedParts.take`; called by all processes, and the same in all. What `fits` says in the first counts."""
        if self._processes.rank > 0:
            return self._follow(name, make, fits)
        said: list[str] = []

        def say(word: str, part: Part | None = None) -> None:
            said.append(word)
            self._processes.first_says(f"part {name}", (word, part))

        def made() -> Part:
            say("make")
            return make()

        def fitting(stored: Part) -> bool:
            say("fits", stored)
            return fits is None or fits(stored)

        found = self._own.take(name, made, fitting)
        if said[-1:] != ["make"]:
            say("found", None if said else found)
        return found

    def _follow(self, name: str, make: Callable[[], Part], fits: Callable[[Part], bool] | None) -> Part:
        """What the first process says is done in another, so that all run the network equally often."""
        stored: Part = {}
        while True:
            word, part = self._processes.first_says(f"part {name}", None)
            if word == "make":
                return make()
            stored = stored if part is None else part
            if word == "found":
                return stored
            if fits is not None:
                fits(stored)
