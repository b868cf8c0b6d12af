"""From what a user typed to values: NAME=VALUE pairs, number lists, byte sizes, buckets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from ntkdiag.errors import InputError, first_line

if TYPE_CHECKING:
    from ntkdiag.process.buckets import Buckets
    from ntkdiag.process.schedules.base import Schedule

Made = TypeVar("Made")

_WORDS = {"true": True, "false": False, "none": None}
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def pairs(option: str, items: Iterable[str] | None) -> dict[str, Any]:
    """NAME=VALUE items as a dictionary.

    Args:
        option: The option they were given by, for the message.
        items: As typed.

    Raises:
        InputError: an item without a name or "=", or a name given twice.
    """
    found: dict[str, Any] = {}
    for item in items or ():
        name, equals, text = item.partition("=")
        if not name.strip() or not equals:
            raise InputError(option, expected="NAME=VALUE", got=repr(item))
        if name.strip() in found:
            raise InputError(option, expected=f"one value for '{name.strip()}'", got="two")
        found[name.strip()] = value(text)
    return found


def value(text: str) -> Any:
    """A whole number, a number, true, false, none, a list of these ("5,3,1"), or else the text itself."""
    text = text.strip()
    if "," in text:
        return [value(part) for part in text.split(",") if part.strip()]
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        # Whole numbers that no integer of a tensor can hold are taken as numbers like any other.
        return number if abs(number) < 2**63 or kind is float else float(text)
    return text


def numbers(option: str, text: str) -> list[float]:
    """Numbers between commas.

    Raises:
        InputError: something else between them.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            option, expected="numbers between commas, such as -10,0,10", got=repr(text)
        ) from None


def size(option: str, text: str | None) -> int | None:
    """Bytes, from "1500000", "500M", "2G" or "2GiB" (K, M and G are powers of 1024); None stays None.

    Raises:
        InputError: not such a size, or none at all.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:I?B)?", text.strip().upper())
    count = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if count < 1:
        raise InputError(option, expected="a number of bytes, such as 500M or 2G", got=repr(text))
    return count


def buckets(text: str, span: str | None, schedule: Schedule) -> Buckets:
    """What --buckets and --range ask for.

    Args:
        text: A count, edges between commas, or "density:COUNT".
        span: "LOW,HIGH" for a count; None for the range of `Buckets.default`.
        schedule: Its density is the one of "density:COUNT".

    Raises:
        InputError: none of these, a range beside edges or density, or buckets that cannot be.
    """
    from ntkdiag.process.buckets import Buckets

    kind, colon, rest = text.partition(":")
    if colon and kind != "density":
        raise InputError("--buckets", expected="a count, edges, or density:COUNT", got=repr(text))
    if span is not None and (colon or "," in text):
        raise InputError("--range", expected="it beside a count of buckets only", got=f"--buckets {text}")
    if colon:
        return Buckets.from_density(schedule, _count(rest))
    if "," in text:
        return Buckets.from_edges(numbers("--buckets", text))
    if not span:
        return Buckets.default(_count(text))
    ends = numbers("--range", span)
    if len(ends) != 2:
        raise InputError("--range", expected="two numbers, LOW,HIGH", got=repr(span))
    return Buckets.uniform(ends[0], ends[1], _count(text))


def _count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(
            "--buckets",
            expected="a count such as 10, edges such as -10,-5,0,5, or density:10",
            got=repr(text),
        ) from None


def checked(option: str, make: Callable[[], Made]) -> Made:
    """Call a constructor of this package with a user's values; a value of a wrong kind is the user's error.

    Raises:
        InputError: what the constructor raises, or in place of a TypeError or ValueError.
    """
    try:
        return make()
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise failure(option, "values of the right kind", error) from error


def failure(what: str, expected: str, error: BaseException) -> InputError:
    """An exception of someone else's as one line: its type, and the first line of its message."""
    return InputError(what, expected=expected, got=first_line(error))


def named_paths(items: Iterable[str] | None) -> list[tuple[str | None, str]]:
    """[NAME=]PATH items as (name or None, path)."""
    found: list[tuple[str | None, str]] = []
    for item in items or ():
        name, equals, path = item.partition("=")
        found.append((name, path) if equals else (None, item))
    return found
