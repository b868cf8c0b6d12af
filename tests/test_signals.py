"""Ctrl-C recorded until a step ends, and SIGTERM treated like Ctrl-C."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from ntkdiag.signals import deferred_interrupt, sigterm_as_interrupt

BOTH = pytest.mark.parametrize(
    ("context", "number", "default"),
    [
        (deferred_interrupt, signal.SIGINT, signal.default_int_handler),
        (sigterm_as_interrupt, signal.SIGTERM, signal.SIG_DFL),
    ],
)


def test_the_first_ctrl_c_is_recorded_and_the_second_raises() -> None:
    with deferred_interrupt() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_sigterm_is_passed_on_as_ctrl_c_every_time_and_told_apart() -> None:
    with sigterm_as_interrupt() as terminated:
        assert not terminated()
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            assert terminated()


def test_sigterm_takes_effect_where_ctrl_c_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in what a script starts in the background
    try:
        with sigterm_as_interrupt() as terminated:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            assert terminated()
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_not_sigterm() -> None:
    with sigterm_as_interrupt() as terminated:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not terminated()


def test_training_defers_sigterm_too_until_a_step_ends() -> None:
    with sigterm_as_interrupt() as terminated, deferred_interrupt() as interrupted:
        signal.raise_signal(signal.SIGTERM)
        assert interrupted() and terminated()


@BOTH
def test_the_handler_is_put_back_after_an_error(context: Any, number: int, default: Any) -> None:
    with pytest.raises(ZeroDivisionError), context():
        assert signal.getsignal(number) is not default
        raise ZeroDivisionError
    assert signal.getsignal(number) is default


@BOTH
def test_a_handler_of_the_caller_is_left_in_charge(context: Any, number: int, default: Any) -> None:
    heard: list[int] = []
    signal.signal(number, lambda number, frame: heard.append(number))
    try:
        with context() as came:
            signal.raise_signal(number)
            assert heard == [number] and not came()
    finally:
        signal.signal(number, default)


@BOTH
def test_it_works_outside_the_main_thread(context: Any, number: int, default: Any) -> None:
    answers = []

    def work() -> None:
        with context() as came:
            answers.append(came())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
