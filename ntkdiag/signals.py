"""Ctrl-C and SIGTERM handled so that a command leaves no half-written file: when they take effect, and whether they came."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any


def deferred_interrupt() -> AbstractContextManager[Callable[[], bool]]:
    """Record the first Ctrl-C instead of raising KeyboardInterrupt; a second one raises at once.

    Training uses it to stop at the end of a step, so that the checkpoint written then can be resumed exactly.

    Returns:
        A context manager that yields a function: whether there was a Ctrl-C. It is always False outside the main
        thread, where Python delivers no signals, and where SIGINT is ignored or has another handler.
    """

    def raise_from_the_second_on(first: bool) -> None:
        if not first:
            raise KeyboardInterrupt

    return _recorded(signal.SIGINT, signal.default_int_handler, raise_from_the_second_on)


def sigterm_as_interrupt() -> AbstractContextManager[Callable[[], bool]]:
    """Treat SIGTERM, which batch systems send before they kill a process, like Ctrl-C.

    Also where Ctrl-C itself is ignored, as in what a script starts in the background.

    Returns:
        A context manager that yields a function: whether SIGTERM came. It is always False where
        `deferred_interrupt` is.
    """

    def interrupt(first: bool) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    return _recorded(signal.SIGTERM, signal.SIG_DFL, interrupt)


@contextmanager
def _recorded(number: int, default: Any, then: Callable[[bool], None]) -> Iterator[Callable[[], bool]]:
    """Inside the block record a signal and call `then` with whether it is the first; a handler of the caller stays."""
    came = False
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(number) is not default:
        yield lambda: False
        return

    def record(number: int, frame: FrameType | None) -> None:
        nonlocal came
        first, came = not came, True
        then(first)

    signal.signal(number, record)
    try:
        yield lambda: came
    finally:
        signal.signal(number, default)
