"""Folders of runs: filled under a temporary name and renamed at the end; only runs of this package are replaced."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ntkdiag.errors import InputError
from ntkdiag.provenance.files import is_file
from ntkdiag.provenance.unfinished import KEPT, made_parent, remove_dead, unfinished_folder, usual_mode

# A folder with one of these files was written by this package and may be replaced with force.
RUN_MARKERS = ("diagnosis.json", "training.json", "demo.json", "verdicts.json", "trust.json")

# The disk is full, the user's share of it is, or the file is longer than the system allows.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run of this package."""
    return any(is_file(folder / marker) for marker in RUN_MARKERS)


def check_free(path: Path | str, force: bool = False) -> None:
    """Refuse an output folder that is in use; called before any work is done.

    What a killed process left beside it is removed first; if that process was just replacing an earlier run, the earlier
    run is put back.

    Raises:
        InputError: `path` is a file, a folder with files that this package did not write, a run (unless `force`
            is set), or a run that contains the current folder.
    """
    path = Path(path)
    remove_dead(path.parent)
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(str(path), expected="a new folder", got="a file of that name")
    if not any(path.iterdir()):
        return
    if not is_run(path):
        raise InputError(str(path), expected="a new or empty folder", got="a folder with other files in it")
    if Path.cwd().is_relative_to(path.resolve()):
        raise InputError(
            str(path), expected="a new folder", got="the current folder, or a folder that contains it"
        )
    if not force:
        raise InputError(
            str(path),
            expected="a new folder",
            got="a folder that holds another run",
            fix="Choose another --out, or replace it with --force.",
        )


@contextmanager
def run_folder(path: Path | str, force: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder, which is renamed to `path` if the block ends without an error.

    Args:
        path: The folder to make; missing parents are made too.
        force: Replace an earlier run at `path`. A folder with other files in it is never replaced.

    Raises:
        InputError: see `check_free`; or the folder cannot be made.
    """
    check_free(path, force)
    path = Path(path).resolve()
    with made_parent(path), unfinished_folder(path) as building:
        building.chmod(usual_mode(0o777))
        with _named(building, path):
            yield building
        check_free(path, force)
        _swap(building, path)


@contextmanager
def _named(building: Path, path: Path) -> Iterator[None]:
    """Errors of writing into the temporary folder speak of the folder that the user knows."""
    try:
        yield
    except (OSError, InputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        inside = str(building) in str(error)
        if not isinstance(cause, OSError) or not (inside or cause.errno in _NO_ROOM):
            raise
        got = cause.strerror or cause
        raise InputError(
            str(path), expected="a folder that can be written to, with room for the run", got=got
        ) from cause


def _swap(building: Path, path: Path) -> None:
    """Rename `building` to `path`; an earlier run there is renamed first and deleted last."""
    if not path.exists():
        building.replace(path)
        return
    with unfinished_folder(path, KEPT) as shelf:  # which puts the earlier run back if the second step fails
        path.replace(shelf / path.name)
        building.replace(path)
