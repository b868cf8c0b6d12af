"""The values that a user types: NAME=VALUE pairs, lists of numbers, sizes in bytes, buckets."""

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
# Arguments of `weights.rule` and `weights.audit` beside the parameters of the rule.
_NO_PARAMETERS = {"name", "weights", "target", "rule", "argument", "schedule"}
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def pairs(option: str, items: Iterable[str] | None) -> dict[str, Any]:
    """NAME=VALUE items as a dictionary.

    Args:
        option: The option, for the error message.
        items: The items as typed.

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


def rule_parameters(option: str, items: Iterable[str] | None) -> dict[str, Any]:
    """NAME=VALUE items that are parameters of a weight rule.

    Raises:
        InputError: that of `pairs`, or the name of something that is no parameter of a rule.
    """
    found = pairs(option, items)
    for name in sorted(_NO_PARAMETERS & found.keys()):
        raise InputError(option, expected="parameters of the rule", got=repr(name))
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
        # An integer too large for a tensor's integers becomes a float.
        return number if abs(number) < 2**63 or kind is float else float(text)
    return text


def numbers(option: str, text: str) -> list[float]:
    """Numbers between commas.

    Raises:
        InputError: a part that is no number.
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
        InputError: not such a size, or a size of 0.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:I?B)?", text.strip().upper())
    count = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if count < 1:
        raise InputError(option, expected="a number of bytes, such as 500M or 2G", got=repr(text))
    return count


def buckets(text: str, span: str | None, schedule: Schedule) -> Buckets:
    """The buckets of --buckets and --range.

    Args:
        text: A count, edges between commas, or "density:COUNT".
        span: "LOW,HIGH" for a count; None for the range in which the schedule trains.
        schedule: The schedule, whose density "density:COUNT" follows.

    Raises:
        InputError: none of these, a range together with edges or density, or buckets that are impossible.
    """
    from ntkdiag.process.buckets import Buckets

    kind, colon, rest = text.partition(":")
    if colon and kind != "density":
        raise InputError("--buckets", expected="a count, edges, or density:COUNT", got=repr(text))
    if span is not None and (colon or "," in text):
        raise InputError("--range", expected="no range, unless --buckets is a count", got=f"--buckets {text}")
    if colon:
        return Buckets.from_density(schedule, _count(rest))
    if "," in text:
        return Buckets.from_edges(numbers("--buckets", text))
    if not span:
        return Buckets.default(schedule, _count(text))
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
    """Call a function of this package with a user's values; a TypeError or ValueError means that a value is wrong.

    Raises:
        InputError: that of the function, or one in place of its TypeError or ValueError.
    """
    try:
        return make()
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(option, expected="values of the right kind", got=first_line(error)) from error


def named_paths(items: Iterable[str] | None) -> list[tuple[str | None, str]]:
    """[NAME=]PATH items as (name or None, path)."""
    found: list[tuple[str | None, str]] = []
    for item in items or ():
        name, equals, path = item.partition("=")
        found.append((name, path) if equals else (None, item))
    return found
