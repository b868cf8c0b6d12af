"""How `--json` prints: one document on stdout, without NaN or infinity. Each command makes its own document."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

_STDOUT, _STDERR = 1, 2
_document_stream: ContextVar[TextIO | _Descriptor | None] = ContextVar("document_stream", default=None)


@contextmanager
def stdout_for_document() -> Iterator[None]:
    """Inside the block, stdout receives what `print_json` prints; all else, such as a model's prints, goes to stderr.

    That holds for what Python prints, and for what a library in C or a child process writes to the file descriptor.
    """
    with _descriptor_to_stderr(sys.stdout) as document:
        token = _document_stream.set(document)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            _document_stream.reset(token)


@contextmanager
def _descriptor_to_stderr(stream: TextIO) -> Iterator[TextIO | _Descriptor]:
    """Inside the block, the descriptor of stdout is that of stderr; yields what writes to where stdout went before.

    A stream that is not the descriptor's, as in a notebook or a test, is yielded itself. Without a descriptor behind the
    stream, or with stdout or stderr closed, nothing is changed.
    """
    try:
        own = stream.fileno() == _STDOUT
        stream.flush()
        os.fstat(_STDERR)
        kept = os.dup(_STDOUT)
    except (OSError, ValueError, AttributeError):
        yield stream
        return
    _flush_c()
    os.dup2(_STDERR, _STDOUT)
    try:
        yield _Descriptor(kept) if own else stream
    finally:
        if own:  # what somebody wrote to the stream itself, and it holds back
            with suppress(OSError, ValueError):
                stream.flush()
        _flush_c()
        os.dup2(kept, _STDOUT)
        os.close(kept)


class _Descriptor:
    """Text to a file descriptor, written at once, so that nothing is left to write after an error."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        rest = text.encode()
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def flush(self) -> None:
        """Nothing is held back."""


def _flush_c() -> None:
    """Write what C libraries hold back in their own buffer of stdout."""
    import ctypes

    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout; NaN and infinities become null, since JSON has neither."""
    print(json.dumps(plain(value), indent=2, allow_nan=False), file=_document_stream.get(), flush=True)


def plain(value: Any) -> Any:
    """The value in types that JSON has: numpy numbers become Python's, paths text, tuples lists,
    NaN and infinities None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
