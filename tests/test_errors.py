"""Errors: what they say, and what the two checks let through."""

from __future__ import annotations

import numpy as np
import pytest

from ntkdiag.errors import (
    InputError,
    MeasurementError,
    NtkdiagError,
    first_line,
    require_int,
    require_number,
    require_one_of,
    require_positive_int,
)


def test_a_line_says_what_was_expected_what_came_and_what_to_do() -> None:
    plain = InputError("--samples", expected="an integer", got="'many'")
    assert str(plain) == "--samples: expected an integer; got 'many'."
    mended = InputError("x", expected="a", got=3, fix="Do b.")
    assert str(mended) == "x: expected a; got 3. Do b."
    assert "\n" not in str(mended)


@pytest.mark.parametrize("foreign", ["a\nb", "a\r\nb", "a\u2028b", "a\x85b\n"])
def test_what_came_from_outside_cannot_break_the_line(foreign: str) -> None:
    assert str(InputError(foreign, expected="c", got=foreign)) == "a b: expected c; got a b."


def test_what_came_from_outside_cannot_fill_the_screen() -> None:
    line = str(InputError("x" * 10_000, expected="c", got="y" * 10_000, fix="Do b."))
    assert len(line) < 2000 and line.count(" …") == 2
    assert line.endswith(" …. Do b.")
    exact = "y" * 800
    assert str(InputError("x", expected="c", got=exact)) == f"x: expected c; got {exact}."


def test_arguments_in_a_remedy_are_spelled_as_keywords_or_as_the_reader_types_them() -> None:
    error = InputError(
        "w",
        expected="a",
        got=3,
        fix="Give {clip}, or {normalise}.",
        arguments={"clip": None, "normalise": False},
    )
    assert str(error) == "w: expected a; got 3. Give clip=, or normalise=False."
    assert error.message(lambda name, value: f"<{name} {value}>").endswith(
        "Give <clip None>, or <normalise False>."
    )


def test_braces_in_a_remedy_without_arguments_stay() -> None:
    assert str(InputError("x", expected="a", got=3, fix="Do {b}.")).endswith("Do {b}.")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n a\r\nb"), "ValueError: a"),
        (RuntimeError(), "RuntimeError"),
        (KeyError("k"), "KeyError: 'k'"),
        (ValueError("y" * 10_000), f"ValueError: {'y' * 800} …"),
    ],
)
def test_an_exception_of_another_library_becomes_one_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_kinds_can_be_caught_together_and_as_pythons_own() -> None:
    assert issubclass(InputError, NtkdiagError) and issubclass(InputError, ValueError)
    assert issubclass(MeasurementError, NtkdiagError) and issubclass(MeasurementError, RuntimeError)
    assert not issubclass(MeasurementError, InputError)


def test_one_of_returns_an_allowed_name() -> None:
    assert require_one_of("target", "v", ("epsilon", "v")) == "v"
    assert require_one_of("target", "v", iter(["epsilon", "v"])) == "v"  # an iterator is read once only


@pytest.mark.parametrize(
    ("got", "fix"), [("epsilom", r" Did you mean 'epsilon'\?$"), ("zzz", r"'zzz'\.$"), ("", r"''\.$")]
)
def test_one_of_lists_what_is_allowed_and_the_closest_spelling(got: str, fix: str) -> None:
    with pytest.raises(InputError, match=f"^target: expected one of epsilon, x0, v; got .*{fix}"):
        require_one_of("target", got, ("epsilon", "x0", "v"))


def test_one_of_refuses_what_is_no_text() -> None:
    with pytest.raises(InputError, match="got None"):
        require_one_of("target", None, ("epsilon",))  # type: ignore[arg-type]


@pytest.mark.parametrize("got", [1, 7, np.int64(7), np.uint8(7)])
def test_integers_of_python_and_numpy_become_plain(got: int) -> None:
    found = require_positive_int("samples", got)
    assert found == int(got) and type(found) is int


@pytest.mark.parametrize("got", [0, -1, np.int64(0), 1.0, np.float64(2), "3", None, True, np.True_])
def test_what_is_no_positive_integer_is_refused(got: object) -> None:
    with pytest.raises(InputError, match=r"^samples: expected an integer of at least 1; got "):
        require_positive_int("samples", got)  # type: ignore[arg-type]


def test_the_minimum_is_allowed_and_named() -> None:
    assert require_int("seed", 0, at_least=0) == 0
    with pytest.raises(InputError, match="at least 3; got 2"):
        require_int("samples", 2, at_least=3)


@pytest.mark.parametrize("got", [2, 2.0, np.float32(2), np.int64(2)])
def test_numbers_of_python_and_numpy_become_plain(got: float) -> None:
    found = require_number("gamma", got, above=0.0)
    assert found == 2.0 and type(found) is float


def test_bounds_are_excluded_or_included_as_their_names_say() -> None:
    assert require_number("k", 0.0, at_least=0.0, at_most=1.0) == 0.0
    assert require_number("k", 1.0, above=0.0, at_most=1.0) == 1.0
    assert require_number("k", -1e300) == -1e300


@pytest.mark.parametrize(
    ("got", "bounds", "expected"),
    [
        (0, {"above": 0.0}, "a number above 0; got 0"),
        (-1, {"at_least": 0.0}, "a number of at least 0; got -1"),
        (1.5, {"at_least": 0.0, "at_most": 1.0}, "a number from 0 to 1; got 1.5"),
        (0, {"above": 0.0, "at_most": 1.0}, "a number above 0 and of at most 1; got 0"),
        (1, {"above": 0.0, "below": 1.0}, "a number above 0 and below 1; got 1"),
        (1.0, {"at_least": 0.0, "below": 1.0}, "a number of at least 0 and below 1; got 1"),
        (2, {"at_most": 1.0}, "a number of at most 1; got 2"),
        (float("nan"), {"above": 0.0}, "a number above 0; got nan"),
        (float("inf"), {}, "a finite number; got inf"),
        (10**400, {"above": 0.0}, "a number above 0; got 1000"),
        (True, {"above": 0.0}, "a number above 0; got True"),
        ("5", {}, "a finite number; got '5'"),
        (None, {"at_least": 1.0}, "a number of at least 1; got None"),
    ],
)
def test_a_number_out_of_range_or_none_at_all_is_refused(got: object, bounds: dict, expected: str) -> None:
    with pytest.raises(InputError, match=f"^gamma: expected {expected}"):
        require_number("gamma", got, **bounds)
