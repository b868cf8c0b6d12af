"""Finished parts of a measurement beside --out: where they are, what is said of them, and when they are removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ntkdiag.cli.output.messages import note
from ntkdiag.errors import NtkdiagError
from ntkdiag.provenance import KeptParts


@contextmanager
def unfinished(out: Path | None) -> Iterator[KeptParts | None]:
    """Yield the place for finished parts, which are removed if the block ends without an error; None without --out.

    After an interruption, or where memory or disk ran out, a line says that the same command goes on from them. After an
    error in what was asked for it would end the same way again: nothing is said, and what this run kept is removed.
    """
    if out is None:
        yield None
        return
    path = out.resolve()
    place = path.parent / f".{path.name[:100]}.unfinished"
    of_earlier_runs = place.exists()
    kept = KeptParts(
        place,
        lambda: note(f"note: goes on from finished parts of an interrupted run beside {out}"),
    )
    try:
        yield kept
    except BaseException as error:
        system_error = isinstance(error.__cause__, OSError)
        if isinstance(error, NtkdiagError) and not system_error:
            if not of_earlier_runs:
                kept.remove()
        elif kept.finished:
            parts = "1 finished part" if kept.finished == 1 else f"{kept.finished} finished parts"
            note(f"note: {parts} beside {out}; the same command again goes on from them")
        raise
    kept.remove()
