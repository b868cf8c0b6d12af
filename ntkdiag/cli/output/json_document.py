"""How `--json` prints: one document on stdout, without NaN or infinity. Each command makes its own document."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

_document_stream: ContextVar[TextIO | None] = ContextVar("document_stream", default=None)


@contextmanager
def stdout_for_document() -> Iterator[None]:
    """Inside the block, stdout receives what `print_json` prints; other Python prints, such as a model's, go to stderr."""
    token = _document_stream.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _document_stream.reset(token)


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
