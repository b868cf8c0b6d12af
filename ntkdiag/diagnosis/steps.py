"""One count of the work of a measurement, over networks, kernels and noise levels: what one progress bar shows."""

from __future__ import annotations

from collections.abc import Callable

from ntkdiag.progress import Progress
from ntkdiag.provenance import KeyedParts
from ntkdiag.provenance.kept_parts import Part

# Work for a sample: a forward, a kernel of one direction for each sample, a probe of the trace kernel (measured here).
FORWARD, DIRECTION, PROBE = 1, 5, 4


class Steps:
    """How much of the work of a measurement is done.

    Finished parts of an interrupted run are no work: they leave the total, so that the time that is left, in
    proportion to what this run has done, is right.

    Args:
        report: Called with (description, done, total).
        total: Work of everything.

    Example:
        >>> steps = Steps(lambda what, done, total: print(what, done, total), 9)
        >>> steps.take("predictions", 4, KeyedParts(), "predictions", dict)
        measuring · predictions 0 9
        measuring · predictions 4 9
        {}
    """

    def __init__(self, report: Progress, total: int) -> None:
        self._report, self._done, self._total = report, 0, total

    def take(
        self,
        what: str,
        work: int,
        parts: KeyedParts,
        name: str,
        make: Callable[[], Part],
        fits: Callable[[Part], bool] | None = None,
    ) -> Part:
        """`parts.take(name, make, fits)`, counted as `work` if it was made.

        Args:
            what: What it is, in words.
            work: Its share of the total.
            parts, name, make, fits: See `KeyedParts.take`.
        """
        made = False

        def making() -> Part:
            nonlocal made
            made = True
            return make()

        self._say(what)
        found = parts.take(name, making, fits)
        if made:
            self._done += work
        else:
            self._total -= work
        self._say(what)
        return found

    def leave_out(self, work: int) -> None:
        """Some of the total turns out not to be needed."""
        self._total -= work

    def finish(self) -> None:
        """Everything is done."""
        self._report("measuring", self._total, self._total)

    def _say(self, what: str) -> None:
        self._report(f"measuring · {what}", min(self._done, self._total), self._total)
