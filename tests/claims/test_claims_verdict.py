"""From numbers to a verdict, and from several parts to one claim."""

from __future__ import annotations

import math

import pytest

from ntkdiag.claims.verdict import THRESHOLD, ClaimResult, all_of, untestable, verdict


def result(low: float, high: float, p_value: float = 0.01, note: str = "", test: str = "t") -> ClaimResult:
    return ClaimResult((low + high) / 2, low, high, p_value, test=test, note=note)


@pytest.mark.parametrize(
    ("low", "high", "p_holm", "expected"),
    [
        (0.2, 0.4, 0.05, "supported"),
        (0.2, 0.4, 0.051, "inconclusive"),
        (0.05, 0.4, 0.01, "inconclusive"),  # above zero, but not clear of the smallest effect that counts
        (THRESHOLD, 0.4, 0.01, "inconclusive"),
        (-0.4, 0.05, 0.01, "contradicted"),
        (0.01, 0.05, 0.01, "contradicted"),  # there, and too small to count
        (-0.4, 0.05, 0.99, "contradicted"),
        (-0.4, THRESHOLD, 0.99, "inconclusive"),
        (-0.4, 0.4, 0.5, "inconclusive"),
        (math.nan, math.nan, 0.01, "inconclusive"),
    ],
)
def test_verdicts(low: float, high: float, p_holm: float, expected: str) -> None:
    assert verdict(result(low, high), p_holm) == expected


def test_what_could_not_be_tested_is_inconclusive() -> None:
    found = untestable("there is nothing")
    assert verdict(found, math.nan) == "inconclusive"
    assert found.note == "Cannot be tested: there is nothing."
    assert verdict(result(0.2, 0.4, p_value=math.nan), math.nan) == "inconclusive"


def test_all_parts_are_needed_for_support() -> None:
    strong, weak = result(0.5, 0.7, 0.001), result(0.2, 0.4, 0.04)
    both = all_of([strong, weak])
    assert (both.effect, both.low, both.high, both.p_value) == (pytest.approx(0.3), 0.2, 0.4, 0.04)
    assert verdict(both, 0.04) == "supported"
    assert verdict(all_of([strong, result(-0.1, 0.4)]), 0.01) == "inconclusive"


def test_one_part_is_enough_to_contradict() -> None:
    """Also where another is so noisy that its interval reaches lower."""
    noisy, clear = result(-0.9, 0.9), result(-0.1, 0.05)
    for parts in ([noisy, clear], [clear, noisy], [result(0.5, 0.7), clear]):
        assert verdict(all_of(parts), 0.01) == "contradicted"
    assert all_of([noisy, clear]).low == -0.9


def test_a_part_that_cannot_be_tested_leaves_the_whole_untested() -> None:
    assert all_of([result(0.5, 0.7), untestable("so")]).note == "Cannot be tested: so."


def test_words_that_parts_share_stand_once() -> None:
    both = all_of([result(0, 1, note="a."), result(0, 1, note="b.", test="u"), result(0, 1, note="a.")])
    assert (both.note, both.test) == ("a. b.", "t; u")
    assert both.threshold == THRESHOLD
