"""Numbers, levels, p-values, ticks and names in words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntkdiag.report import formatting


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (-0.01234, "−0.0123"),
        (99999.0, "1.00×10⁵"),
        (12345.0, "12345"),
        (1.234e-7, "1.23×10⁻⁷"),
        (-4e9, "−4.00×10⁹"),
        (float("nan"), "–"),
        (None, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0.9999, "1.00"),
    ],
)
def test_number(value: float | None, expected: str) -> None:
    assert formatting.number(value) == expected


@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300).filter(
        lambda x: abs(x) > 1e-300
    )
)
def test_a_number_reads_back_to_three_digits(value: float) -> None:
    expected = formatting.number(value).replace("−", "-")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    mantissa, _, power = expected.partition("×10")
    back = float(mantissa) * 10.0 ** int(power.translate(digits) or 0)
    assert back == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-9.0, "−9"), (2.5, "2.5"), (-0.01, "0"), (0.0, "0"), (10.0, "10"), (-1.25, "−1.2")],
)
def test_level(value: float, expected: str) -> None:
    assert formatting.level(value) == expected


def test_interval_falls_back_to_the_number_alone() -> None:
    assert formatting.interval(8.1, 7.52, 8.69) == "8.10 [7.52, 8.69]"
    assert formatting.interval(0.03, -0.09, 0.15, digits=2) == "0.030 [−0.090, 0.15]"
    assert formatting.interval(8.1, float("nan"), 9.0) == "8.10"
    assert formatting.interval(8.1) == "8.10"


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0004, "< 0.001"), (0.0123, "0.012"), (1.0, "1"), (float("nan"), "–")]
)
def test_p_value(value: float, expected: str) -> None:
    assert formatting.p_value(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "1"),
        (0.95, "0.95"),
        (200.0, "200"),
        (5000.0, "5000"),
        (1e-5, "10⁻⁵"),
        (2e-5, "2×10⁻⁵"),
        (1e6, "10⁶"),
        (0.0, ""),
    ],
)
def test_log_tick(value: float, expected: str) -> None:
    assert formatting.log_tick(value) == expected


def test_a_name_from_outside_becomes_one_short_printable_line() -> None:
    assert formatting.one_line("two\nlines\tand\x00 more") == "two lines and more"
    assert formatting.one_line("right-to-left \u202e override") == "right-to-left override"
    assert formatting.one_line("x" * 100) == "x" * 39 + "…"
    assert formatting.one_line(7) == "7"
