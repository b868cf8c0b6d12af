"""How the command line talks: progress on a terminal and nowhere else, one clear line for an error, JSON on request."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# (what is being done, done so far, total)
Progress = Callable[[str, int, int], None]


@contextmanager
def progress_bar(enabled: bool = True) -> Iterator[Progress]:
    """A progress callback: a bar per stage on a terminal's stderr, silence in a pipe.

    A stage is told apart by its text up to " · "; what follows may change while it runs.
    """
    if not (enabled and sys.stderr.isatty()):
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            key = stage.partition(" · ")[0]
            if key not in tasks:
                tasks[key] = bars.add_task(stage, total=total)
            bars.update(tasks[key], description=stage, completed=done, total=total)
            if done >= total:
                bars.remove_task(tasks.pop(key))

        yield report


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


def print_json(value: Any) -> None:
    """One JSON document on stdout; NaN and infinities become null, since JSON has neither."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numpy numbers become Python's, NaN and infinities None, tuples lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
