"""Lines for a person: results on stdout, notes and errors on stderr."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str = "") -> None:
    """A line for a person, on stdout."""
    print(text, flush=True)


def note(text: str) -> None:
    """A side remark, on stderr: results on stdout stay clean."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def escaping() -> Iterator[None]:
    """Inside the block stdout takes any text: what it cannot encode is escaped. Names of files may hold any bytes, and
    not every terminal knows Greek. stderr does so by itself."""
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
