from __future__ import annotations

import os
import signal
import threading

import pytest

from ntkdiag.train.interrupt import deferred_interrupt


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_first_ctrl_c_is_remembered_and_the_second_raises():
    with deferred_interrupt() as asked:
        assert not asked()
        ctrl_c()
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handler_is_put_back_after_an_error():
    with pytest.raises(ZeroDivisionError), deferred_interrupt():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_caller_is_left_in_charge():
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with deferred_interrupt() as asked:
            ctrl_c()
            assert heard == [signal.SIGINT]
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_works_outside_the_main_thread():
    answers = []

    def work():
        with deferred_interrupt() as asked:
            answers.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
