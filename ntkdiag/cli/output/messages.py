"""Lines for a person: results on stdout, notes and errors on stderr."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str = "") -> None:
    """Print a line on stdout."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print a line on stderr, so that stdout holds results alone."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def escaping() -> Iterator[None]:
    """Inside the block, characters that stdout cannot encode are escaped, as on stderr: names of files may hold any
    bytes, and not every terminal knows Greek."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)
