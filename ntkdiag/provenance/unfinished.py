"""Temporary folders beside what is being written: locked while their process lives, removed by the next one if it died.

The system releases the lock of a process that is killed. A lock need not reach another machine, so a folder is removed only
on the machine that made it; its name says which.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ntkdiag.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing is removed
    fcntl = None  # type: ignore[assignment]

# What a folder ends in: one that is being filled, and one that holds what is being replaced.
FILLED, KEPT = ".tmp", ".old"
_MARK = ".ntkdiag-"
_LONGEST_NAME = 40
_ATTEMPTS = 100


@contextmanager
def unfinished_folder(place: Path, suffix: str = FILLED) -> Iterator[Path]:
    """Yield a new hidden folder beside `place`, locked in the block; what is left of it is removed afterwards.

    Args:
        place: What will be written.
        suffix: `FILLED` or `KEPT`.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder, lock = _claimed(place, suffix)
    except (
        OSError,
        ValueError,
    ) as error:  # ValueError: the path has a NUL, or characters that cannot be encoded
        got = error.strerror if isinstance(error, OSError) else error
        raise InputError(str(place), expected="a path in a writable folder", got=got) from error
    try:
        yield folder
    finally:
        with suppress(OSError):
            _clear(folder)
        if lock is not None:
            os.close(lock)


@contextmanager
def made_parent(place: Path) -> Iterator[Path]:
    """Make the folders above a path for the block, and yield the path; if the block fails, they are removed again.

    Raises:
        InputError: they cannot be made.
    """
    missing = [folder for folder in place.parents if not folder.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise InputError(str(place), expected="a path in a writable folder", got=error.strerror) from error
    try:
        yield place
    except BaseException:
        _remove_empty(missing)
        raise


def remove_dead(parent: Path) -> None:
    """Remove the temporary folders in `parent` whose process on this machine is dead, and put back what it was replacing."""
    with suppress(OSError, ValueError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(".") and _MARK in entry.name and _is_of_this_machine(entry.name):
                with suppress(OSError):
                    _remove_if_dead(Path(entry.path))


def usual_mode(mode: int) -> int:
    """A file mode as the umask of this process leaves it."""
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask


def _claimed(place: Path, suffix: str) -> tuple[Path, int | None]:
    """A new folder and its lock; None where there are no locks."""
    for _ in range(_ATTEMPTS):
        name = f".{place.name[:_LONGEST_NAME]}{_MARK}{_host()}-{_boot()}-{secrets.token_hex(4)}{suffix}"
        folder = place.parent / name
        try:
            folder.mkdir(0o700)
            if fcntl is None:
                return folder, None
            lock = os.open(folder, os.O_RDONLY)
        except (FileExistsError, FileNotFoundError):
            if not place.parent.is_dir():
                raise
            continue  # another process has the name, or took the folder for a dead one before it was locked
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        except OSError:  # a file system without locks, on which nobody can find it dead
            os.close(lock)
            return folder, None
        if folder.exists():
            return folder, lock
        os.close(lock)
    raise OSError(0, "no temporary folder stays where it is made")


def _remove_if_dead(folder: Path) -> None:
    if fcntl is None or not folder.is_dir() or folder.is_symlink():
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError where its process lives
        _clear(folder)
    finally:
        os.close(lock)


def _clear(folder: Path) -> None:
    """Remove a temporary folder; what was to be replaced goes back to its place if nothing has taken it."""
    if folder.suffix == KEPT:
        for kept in list(folder.iterdir()):
            if not (folder.parent / kept.name).exists():
                kept.replace(folder.parent / kept.name)
    shutil.rmtree(folder)


def _is_of_this_machine(name: str) -> bool:
    host, _, rest = name.rpartition(_MARK)[2].partition("-")
    return host == _host() or rest.partition("-")[0] == _boot()


@cache
def _host() -> str:
    """A short name of this machine; containers of one machine may have several."""
    machine = _read("/etc/machine-id") or str(_hardware_address())
    return _short(f"{platform.node()} {machine}")


@cache
def _boot() -> str:
    """A short name of this start of the machine, the same in all of its containers; nobody else's where it is unknown."""
    return _short(_read("/proc/sys/kernel/random/boot_id") or secrets.token_hex(8))


def _hardware_address() -> int:
    import uuid

    return uuid.getnode()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that are empty, the innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
