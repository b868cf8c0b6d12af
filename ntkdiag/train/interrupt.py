"""Ctrl-C held back until a step is whole, so that what is saved then can be resumed exactly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupt() -> Iterator[Callable[[], bool]]:
    """Remember the first Ctrl-C instead of raising it; a second one raises at once.

    Yields:
        A function that tells whether Ctrl-C came. Outside the main thread, where Python delivers no
        signals, and where signals are ignored or handled elsewhere, it is always False.
    """
    asked = False
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
