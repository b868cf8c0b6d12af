"""Ctrl-C takes effect only at the end of a training step, so that a checkpoint written then can be resumed exactly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Record the first Ctrl-C instead of raising KeyboardInterrupt; a second one raises at once.

    Yields:
        A function that returns whether there was a Ctrl-C. It is always False outside the main thread, where Python
        delivers no signals, and where SIGINT is ignored or has another handler.
    """
    interrupted = False
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return

    def record(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True

    signal.signal(signal.SIGINT, record)
    try:
        yield lambda: interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
