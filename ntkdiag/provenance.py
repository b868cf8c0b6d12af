"""What produced this number, and how files reach the disk: whole, or not at all.

`environment` and `digest` describe a run (versions, device, data hash). `write_text`/`write_bytes`
replace a file atomically; `read_text` reads one that may be anything. `run_folder` builds a whole folder
aside and moves it into place at the end, and never replaces a folder that is not a run of this package.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.errors import InputError

if TYPE_CHECKING:
    import torch

# A folder that holds one of these was written by this package and may be replaced with force.
RUN_MARKERS = ("diagnosis.json", "training.json", "demo.json", "verdicts.json")


def environment(device: torch.device | str = "cpu") -> dict[str, str]:
    """Versions and hardware behind a number: python, packages, platform, device name, thread count."""
    import torch

    versions = {name: metadata.version(name) for name in ("ntkdiag", "torch", "numpy", "scipy", "pandas")}
    place = torch.device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        **versions,
        "platform": platform.system(),
        "device": f"{place.type} ({name})",
        "threads": str(torch.get_num_threads()),
    }


def digest(*tensors: torch.Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of tensors: equal data gives an equal string."""
    import torch

    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        # Bytes rather than numbers: numpy has no bfloat16.
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def is_file(path: Path | str) -> bool:
    """Whether there is a file of that name; False too for names that no file can have, such as one of 300 letters."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def read_text(path: Path | str) -> str:
    """A whole text file in UTF-8; a byte-order mark, as spreadsheets write it, is left out.

    Raises:
        InputError: the file is missing, is no file of its own (a pipe or a device may never end), or is not text.
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
    except ValueError as error:  # of the path: a NUL, or letters that the file system has no bytes for
        raise InputError(repr(str(path)), expected="the path of a file", got=str(error)) from error


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        InputError: the parent folder is missing or cannot be written to.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise InputError(str(path), expected="a path in a writable folder", got=error.strerror) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """`write_text` of indented JSON; NaN and infinities are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def jsonable(value: Any) -> Any:
    """`value` as JSON can hold it: tuples become lists, and NaN and infinities text that `float` reads back."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def is_run(folder: Path) -> bool:
    """Whether this package wrote `folder`."""
    return any((folder / marker).is_file() for marker in RUN_MARKERS)


def check_free(path: Path | str, force: bool = False) -> None:
    """Refuse an output folder that is in use, before any work is spent on it.

    Raises:
        InputError: `path` is a file, holds foreign files, holds a run and `force` is off, or holds a run and
            the current folder.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(str(path), expected="a new folder", got="a file of that name")
    if not any(path.iterdir()):
        return
    if not is_run(path):
        raise InputError(str(path), expected="a new or empty folder", got="a folder with other files in it")
    if Path.cwd().is_relative_to(path.resolve()):
        raise InputError(str(path), expected="a new folder", got="the current folder, or one it lies in")
    if not force:
        raise InputError(
            str(path),
            expected="a new folder",
            got="a folder that holds another run",
            fix="Choose another --out, or replace it with --force.",
        )


@contextmanager
def run_folder(path: Path | str, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path` to fill; it becomes `path` when the block ends without an error.

    Args:
        path: The folder to make. Missing parents are made.
        force: Replace a folder that holds an earlier run (never one with foreign files).

    Raises:
        InputError: see `check_free`; or the folder cannot be made there.
    """
    check_free(path, force)
    path = Path(path).resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    except OSError as error:
        raise InputError(str(path), expected="a path in a writable folder", got=error.strerror) from error
    try:
        building.chmod(0o777 & ~_umask())
        yield building
        check_free(path, force)
        _swap(building, path)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _swap(building: Path, path: Path) -> None:
    """Move `building` to `path`; an earlier run there is set aside first, deleted only afterwards."""
    if not path.exists():
        building.replace(path)
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
    path.replace(aside)
    try:
        building.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    shutil.rmtree(aside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
