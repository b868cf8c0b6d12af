"""SIGTERM taken as Ctrl-C."""

from __future__ import annotations

import signal
import threading

import pytest

from ntkdiag.cli.ending import terminated_as_interrupted
from ntkdiag.train.interrupt import deferred_interrupt


def test_sigterm_is_passed_on_as_ctrl_c_and_told_apart() -> None:
    with terminated_as_interrupted() as terminated:
        assert not terminated()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert terminated()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ctrl_c_is_not_sigterm() -> None:
    with terminated_as_interrupted() as terminated:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not terminated()


def test_training_holds_it_until_a_step_is_whole() -> None:
    with terminated_as_interrupted() as terminated, deferred_interrupt() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked() and terminated()


def test_a_handler_of_the_caller_is_left_in_charge() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with terminated_as_interrupted() as terminated:
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM] and not terminated()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_it_works_outside_the_main_thread() -> None:
    answers = []

    def work() -> None:
        with terminated_as_interrupted() as terminated:
            answers.append(terminated())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
