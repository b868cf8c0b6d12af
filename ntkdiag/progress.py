"""Progress bars on a terminal, a line in a notebook, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

# (stage, steps done, steps in all)
Progress = Callable[[str, int, int], None]
# The time that is left follows from the speed since the beginning: steps may take minutes each.
_WHOLE = 1e9


@contextmanager
def reporting(progress: Progress | bool | None) -> Iterator[Progress]:
    """Yield the callback of a long function: that of its user, or a display.

    Args:
        progress: The user's callback; None for bars on a terminal and a line in a notebook; False for nothing, True as None.
    """
    if callable(progress):
        yield progress
    elif progress is not False and (display := _display_of_notebook()) is not None:
        yield _line(display)
    else:
        with progress_bar(progress is not False) as bars:
            yield bars


@contextmanager
def progress_bar(enabled: bool = True) -> Iterator[Progress]:
    """Yield a progress callback: it draws a bar for each stage on a terminal's stderr, and nothing in a pipe.

    The text up to " · " identifies a stage; what follows may change while the stage runs.
    """
    if not (enabled and sys.stderr.isatty()):
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    settings: dict[str, Any] = {"console": Console(stderr=True), "transient": True}
    with Bars(*columns, **settings, speed_estimate_period=_WHOLE) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            key = stage.partition(" · ")[0]
            if key not in tasks:
                tasks[key] = bars.add_task(stage, total=total)
            bars.update(tasks[key], description=stage, completed=done, total=total)
            if done >= total:
                bars.remove_task(tasks.pop(key))

        yield report


def _display_of_notebook() -> Any:
    """IPython's display, in a notebook alone."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ != "ZMQInteractiveShell":
        return None
    from IPython.display import display

    return display


def _line(display: Any) -> Progress:
    """A callback that keeps one line of a notebook's output up to date: stage, steps, and the time that is left of it."""
    handle: Any = None
    begun: dict[str, tuple[float, int]] = {}

    def report(stage: str, done: int, total: int) -> None:
        nonlocal handle
        start, first = begun.setdefault(stage.partition(" · ")[0], (monotonic(), done))
        text = f"{stage}  {done}/{total}"
        if first < done < total:
            seconds = (monotonic() - start) / (done - first) * (total - done)
            text += f"  {int(seconds) // 60}:{int(seconds) % 60:02d} left"
        shown = {"text/plain": text}
        if handle is None:
            handle = display(shown, raw=True, display_id=True)
        else:
            handle.update(shown, raw=True)

    return report
