"""Finished parts of a measurement beside --out: where they are, what is said of them, and when they are removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ntkdiag.cli.output.messages import note
from ntkdiag.provenance import KeptParts


@contextmanager
def unfinished(out: Path | None) -> Iterator[KeptParts | None]:
    """Yield the place for finished parts, which are removed if the block ends without an error; None without --out.

    After an error or an interruption a line says that the same command goes on from them.
    """
    if out is None:
        yield None
        return
    path = out.resolve()
    kept = KeptParts(
        path.parent / f".{path.name[:100]}.unfinished",
        lambda: note(f"note: goes on from finished parts of an interrupted run beside {out}"),
    )
    try:
        yield kept
    except BaseException:
        if kept.finished:
            parts = "1 finished part" if kept.finished == 1 else f"{kept.finished} finished parts"
            note(f"note: {parts} beside {out}; the same command again goes on from them")
        raise
    kept.remove()
