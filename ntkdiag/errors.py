"""Errors that a user can cause, and checks of single values that raise them.

An `InputError` says in one line what was expected, what came and what to do; the command line
prints that line and exits with 2. A `MeasurementError` means the input was fine, but no trustworthy
number came out.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType
from typing import Any

# Most characters of a text from outside that an error repeats.
_LONGEST = 800


class NtkdiagError(Exception):
    """Root of all errors this package raises on purpose."""


def as_keyword(name: str, value: object) -> str:
    """An argument as Python spells it: "clip=" without a value, "normalise=False" with one."""
    return f"{name}={'' if value is None else value}"


class InputError(NtkdiagError, ValueError):
    """Bad input, explained in one line.

    Args:
        what: The thing that is wrong, as the user names it ("schedule", "--samples", a file path).
        expected: What would have been accepted.
        got: What came instead.
        fix: The next step for the user; left out when `expected` already says it. Where it names arguments of a
            function, they stand in braces: "Bound the weight with {clip}."
        arguments: The arguments in `fix`, each with the value to give it (as it is written in Python), or None for any
            value. The command line spells them as its options.

    Text from outside may have any length and line breaks: line breaks become spaces, and long text is cut.

    Example:
        >>> print(InputError("weight", expected="a finite weight", got="inf", fix="Give {clip}.", arguments={"clip": 5}))
        weight: expected a finite weight; got inf. Give clip=5.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: str,
        got: object,
        fix: str | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        self._problem = f"{_short(what)}: expected {expected}; got {_short(str(got))}."
        self._fix = fix
        self.arguments = dict(arguments or {})
        super().__init__(self.message())

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is sent to another process."""
        return _sent, (type(self), str(self), vars(self))

    def message(self, spell: Callable[[str, object], str] = as_keyword) -> str:
        """The whole line.

        Args:
            spell: From the name and the value of an argument that `fix` mentions to its text.
        """
        if self._fix is None:
            return self._problem
        spelled = {name: spell(name, value) for name, value in self.arguments.items()}
        return f"{self._problem} {self._fix.format(**spelled) if spelled else self._fix}"


def _sent(kind: type[InputError], text: str, fields: dict[str, Any]) -> InputError:
    """An error that came from another process."""
    error = kind.__new__(kind, text)
    vars(error).update(fields)
    return error


def first_line(error: BaseException) -> str:
    """An exception of another library in one line: its type, and the first line of its message.

    Example:
        >>> first_line(ValueError("too many\\ncookies"))
        'ValueError: too many'
    """
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    return f"{kind}: {_short(lines[0])}" if lines else kind


def files_of(error: BaseException) -> list[str]:
    """The source files that an exception came through, outermost first; of one from another process, those of that one."""
    there: list[str] | None = getattr(error, "files_there", None)
    return there or [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names with commas between; of many, the first few and how many there are.

    Example:
        >>> listed("abcdefghi")
        'a, b, c, d, e, f, … (9 in all)'
    """
    every = list(names)
    shown = ", ".join(every[:most])
    return shown if len(every) <= most else f"{shown}, … ({len(every)} in all)"


def _short(text: str) -> str:
    """The text on one line, cut at `_LONGEST` characters."""
    line = " ".join(text[: _LONGEST + 1].splitlines())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + " …"


class MeasurementError(NtkdiagError, RuntimeError):
    """The input was acceptable but the measurement failed (non-finite values, a guard that tripped).

    Example:
        >>> raise MeasurementError("training: expected a finite loss; got nan at step 3.")
        Traceback (most recent call last):
        ntkdiag.errors.MeasurementError: training: expected a finite loss; got nan at step 3.
    """


def require_one_of(what: str, got: str, allowed: Iterable[str]) -> str:
    """Return `got` if it is one of `allowed`.

    Raises:
        InputError: otherwise, listing what is allowed and the closest spelling.
    """
    names = list(allowed)
    if got in names:
        return got
    raise InputError(
        what, expected="one of " + ", ".join(names), got=repr(got), fix=did_you_mean(str(got), names)
    )


def require_type(
    what: str, got: object, kinds: type | tuple[type, ...], expected: str, fix: str | None = None
) -> None:
    """Refuse a value of another type than `kinds`; the error says its type and not its content, which may be long.

    Args:
        what: The thing that is checked, as the user names it.
        got: What came.
        kinds: As for `isinstance`.
        expected: What would have been accepted, in words.
        fix: The next step for the user.

    Raises:
        InputError: `got` is none of them.

    Example:
        >>> require_type("data", 3, str, "the name of a data set")
        Traceback (most recent call last):
        ntkdiag.errors.InputError: data: expected the name of a data set; got int.
    """
    if not isinstance(got, kinds):
        raise InputError(what, expected=expected, got=kind_of(got), fix=fix)


def kind_of(value: object) -> str:
    """What a value is, in a word: its type; of a type or a missing value, that.

    Example:
        >>> kind_of(3), kind_of(None), kind_of(dict)
        ('int', 'None', 'the class dict')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else type(value).__name__


def require_path(what: str, got: Any) -> Path:
    """Return `got` as a path if it is a text or a path.

    Raises:
        InputError: otherwise.
    """
    require_type(what, got, (str, os.PathLike), "a path, as text or pathlib.Path")
    return Path(got)


def explain_calls(module: str, instead: str) -> None:
    """Let a call of a module, such as `nd.report(diagnosis)`, say which of its functions to call.

    Args:
        module: Its name, such as "ntkdiag.report".
        instead: What to write, such as "nd.report.write_page('page.html', diagnosis)".
    """

    class Explained(ModuleType):
        def __call__(self, *_: object, **__: object) -> None:
            raise InputError(
                f"nd.{module.rpartition('.')[2]}",
                expected="a function of this module",
                got="a call of the module itself",
                fix=f"Write {instead}.",
            )

    sys.modules[module].__class__ = Explained


def did_you_mean(got: str, names: Iterable[str]) -> str | None:
    """The question whether the closest of `names` was meant; None if none is close."""
    close = difflib.get_close_matches(got, list(names), n=1)
    return f"Did you mean '{close[0]}'?" if close else None


def require_int(what: str, got: int, *, at_least: int) -> int:
    """Return `got` as a plain int if it is an integer (Python's or numpy's) of at least `at_least`.

    Raises:
        InputError: otherwise; True and False are not accepted as integers.
    """
    if isinstance(got, bool) or not isinstance(got, Integral) or got < at_least:
        raise InputError(what, expected=f"an integer of at least {at_least}", got=repr(got))
    return int(got)


def require_positive_int(what: str, got: int) -> int:
    """`require_int` of at least 1."""
    return require_int(what, got, at_least=1)


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
        InputError: otherwise; True and False are not accepted as numbers.
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
