"""How an error of one process becomes an error of all: the exception is sent, or what its message says."""

from __future__ import annotations

import pickle

from ntkdiag.errors import MeasurementError, files_of, first_line


class OutOfStep(MeasurementError):
    """The processes are at different places of the computation."""


class LostProcess(MeasurementError):
    """A process does not answer any more."""


def packed(error: Exception) -> bytes:
    """An exception, to be sent to the other processes of the same program, and the files that it came through."""
    try:
        found = pickle.dumps((error, files_of(error)))
        pickle.loads(found)
    except Exception:  # exceptions of other libraries need not survive this
        return pickle.dumps((RuntimeError(first_line(error)), files_of(error)))
    return found


def first_of(failures: list[bytes | None]) -> tuple[int, Exception]:
    """The failure of the first process that failed: its rank, and its exception."""
    rank, failure = next((rank, each) for rank, each in enumerate(failures) if each is not None)
    found: Exception
    found, found.files_there = pickle.loads(failure)  # type: ignore[attr-defined]
    found.add_note(f"in process {rank}")
    return rank, found
