"""What went wrong and what to do next: every error a user can cause is raised from here.

An `InputError` says in one line what was expected, what came and how to mend it; the command line
prints that line and exits with 2. A `MeasurementError` means the input was fine but no trustworthy
number came out.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

# Characters of a quotation in an error.
_LONGEST = 800


class NtkdiagError(Exception):
    """Root of all errors this package raises on purpose."""


class InputError(NtkdiagError, ValueError):
    """Bad input, told in one line.

    Args:
        what: The thing that is wrong, as the user names it ("schedule", "--samples", a file path).
        expected: What would have been accepted.
        got: What came instead.
        fix: The next step for the user; left out when `expected` already says it.

    What came from outside may have any length and line breaks: the line is kept one, and to its purpose.
    """

    def __init__(self, what: str, *, expected: str, got: object, fix: str | None = None) -> None:
        line = f"{_short(what)}: expected {expected}; got {_short(str(got))}."
        super().__init__(f"{line} {fix}" if fix else line)
        self.fix = fix


def _short(text: str) -> str:
    """The text on one line, its end left out where nobody would read on."""
    line = " ".join(text[: _LONGEST + 1].splitlines())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + " …"


class MeasurementError(NtkdiagError, RuntimeError):
    """The input was acceptable but the measurement failed (non-finite values, a guard that tripped)."""


def require_one_of(what: str, got: str, allowed: Iterable[str]) -> str:
    """Return `got` if it is one of `allowed`.

    Raises:
        InputError: otherwise, listing what is allowed and the closest spelling.
    """
    names = list(allowed)
    if got in names:
        return got
    close = difflib.get_close_matches(str(got), names, n=1)
    fix = f"Did you mean '{close[0]}'?" if close else None
    raise InputError(what, expected="one of " + ", ".join(names), got=repr(got), fix=fix)


def require_positive_int(what: str, got: int, minimum: int = 1) -> int:
    """Return `got` as a plain int if it is an integer (Python's or numpy's) of at least `minimum`.

    Raises:
        InputError: otherwise; True and False are no integers here.
    """
    if isinstance(got, bool) or not isinstance(got, Integral) or got < minimum:
        raise InputError(what, expected=f"an integer of at least {minimum}", got=repr(got))
    return int(got)


def require_number(
    what: str,
    got: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> float:
    """Return `got` as a float if it is a finite number (Python's or numpy's) within the bounds.

    Args:
        what: The thing that is checked, as the user names it.
        got: What came.
        above, at_least: Lower bound, excluded or included; give one at most.
        at_most, below: Upper bound, included or excluded; give one at most.

    Raises:
        InputError: otherwise; True and False are no numbers here.
    """
    try:
        value = float(got) if isinstance(got, Real) and not isinstance(got, bool) else math.nan
    except OverflowError:  # an integer beyond the range of a float
        value = math.inf
    outside = (
        (above is not None and value <= above)
        or (at_least is not None and value < at_least)
        or (at_most is not None and value > at_most)
        or (below is not None and value >= below)
    )
    if outside or not math.isfinite(value):
        raise InputError(what, expected=_range(above, at_least, at_most, below), got=repr(got))
    return value


def _range(above: float | None, at_least: float | None, at_most: float | None, below: float | None) -> str:
    """The numbers within the bounds, in words."""
    if at_least is not None and at_most is not None:
        return f"a number from {at_least:g} to {at_most:g}"
    words = {"above": above, "of at least": at_least, "of at most": at_most, "below": below}
    bounds = [f"{word} {bound:g}" for word, bound in words.items() if bound is not None]
    return f"a number {' and '.join(bounds)}" if bounds else "a finite number"
