"""From text to values."""

from __future__ import annotations

from typing import Any

import pytest

from ntkdiag.cli.options import parsing
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.buckets import Buckets


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-4", 1e-4),
        ("-inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("none", None),
        ("vp", "vp"),
        ("1,2.5,vp", [1, 2.5, "vp"]),
        (" 7 ", 7),
        ("", ""),
    ],
)
def test_values(text: str, wanted: Any) -> None:
    found = parsing.value(text)
    assert found == wanted and type(found) is type(wanted)


def test_pairs() -> None:
    assert parsing.pairs("--x", ["a=1", "b = vp", "c=x=y"]) == {"a": 1, "b": "vp", "c": "x=y"}
    assert parsing.pairs("--x", None) == {}
    with pytest.raises(InputError, match="--x: expected one value for 'a'; got two"):
        parsing.pairs("--x", ["a=1", "a=2"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("100", 100),
        ("1K", 1024),
        ("2m", 2 * 1024**2),
        ("1.5G", 3 * 2**29),
        ("1GiB", 2**30),
        ("5 MB", 5 * 2**20),
    ],
)
def test_sizes(text: str, wanted: int) -> None:
    assert parsing.size("--memory", text) == wanted
    assert parsing.size("--memory", None) is None


def test_buckets() -> None:
    path = schedules.cosine()
    assert parsing.buckets("5", None, path) == Buckets.default(path, 5)
    assert parsing.buckets("5", "-10,10", path).edges == (-10.0, -6.0, -2.0, 2.0, 6.0, 10.0)
    assert parsing.buckets("2", "-3,5", path).edges == (-3.0, 1.0, 5.0)
    assert parsing.buckets("-10,-5,0,5", None, path).edges == (-10.0, -5.0, 0.0, 5.0)
    spread = parsing.buckets("density:4", None, path)
    assert len(spread) == 4
    assert spread.edges[2] == pytest.approx(0.0, abs=1e-9)


def test_named_paths() -> None:
    assert parsing.named_paths(["a=x/y", "z.csv"]) == [("a", "x/y"), (None, "z.csv")]
    assert parsing.named_paths(None) == []


def test_whole_numbers_that_no_tensor_can_hold_are_numbers_like_any_other() -> None:
    assert parsing.value("9" * 400) == float("inf") and parsing.value("-" + "9" * 400) == -float("inf")
    assert parsing.value(str(2**63)) == 2.0**63 and isinstance(parsing.value(str(2**63)), float)
    assert parsing.value(str(2**63 - 1)) == 2**63 - 1 and isinstance(parsing.value("7"), int)
    assert parsing.value("9" * 5000) == float("inf")  # more digits than Python reads as a whole number
