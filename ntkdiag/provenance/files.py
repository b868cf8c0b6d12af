"""Files that are written whole or not at all, and text files from outside."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ntkdiag.errors import InputError
from ntkdiag.provenance.unfinished import remove_dead, unfinished_folder


def is_file(path: Path | str) -> bool:
    """Whether there is a file of that name; also False for a name that no file can have, such as one of 300 letters."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path | str) -> bool:
    """Whether there is a folder of that name; False, as `is_file`, for a name that nothing can have."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def read_text(path: Path | str) -> str:
    """The content of a text file in UTF-8, without the byte-order mark that spreadsheets write.

    Raises:
        InputError: the file is missing or is not text, or the path is a pipe or a device, which may never end.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(str(path), expected="a file", got="a pipe or a device")
        return path.read_text(encoding="utf-8-sig")
    except InputError:  # a ValueError too
        raise
    except OSError as error:
        raise InputError(str(path), expected="a readable file", got=error.strerror) from error
    except UnicodeDecodeError as error:
        raise InputError(str(path), expected="a text file in UTF-8", got="other bytes") from error
    except ValueError as error:  # the path has a NUL, or characters that the file system cannot encode
        raise InputError(repr(str(path)), expected="the path of a file", got=str(error)) from error


@contextmanager
def written(path: Path | str) -> Iterator[Path]:
    """Yield another path to write a file to, which becomes `path` if the block ends without an error.

    A reader sees the old content or the new, never a part.

    Raises:
        InputError: the parent folder is missing or cannot be written to, or has no room for the file.
    """
    path = Path(path)
    remove_dead(path.parent)
    with unfinished_folder(path) as folder:
        file = folder / f"file{path.suffix[:10]}"
        try:
            yield file
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            file.replace(path)
        except OSError as error:
            got = error.strerror or error
            raise InputError(
                str(path), expected="a file that can be written, with room for it", got=got
            ) from error


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file atomically, see `written`.

    Raises:
        InputError: the parent folder is missing or cannot be written to, or has no room for the file.
    """
    with written(path) as file:
        file.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """`write_text` of indented JSON with sorted keys; ValueError for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def jsonable(value: Any) -> Any:
    """`value` as JSON can hold it: tuples become lists, and NaN and infinities text that `float` reads back."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
