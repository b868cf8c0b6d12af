"""SIGTERM taken as Ctrl-C, so that a command which is told to end leaves nothing half-written either."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminated_as_interrupted() -> Iterator[Callable[[], bool]]:
    """Pass SIGTERM, as batch systems send it before they kill, on as SIGINT: training saves a checkpoint, and files
    that are being written are removed.

    Yields:
        A function that tells whether SIGTERM came. Outside the main thread, where Python delivers no signals, and
        where SIGTERM is ignored or handled elsewhere, it is always False.
    """
    came = False
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: False
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
