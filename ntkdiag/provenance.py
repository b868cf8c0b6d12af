"""What produced a result (versions, device, data hash), and files and folders that are written whole or not at all.

`write_text` and `write_bytes` replace a file atomically; `read_text` reads a file from outside. `run_folder`
fills a temporary folder and renames it at the end; it replaces only folders that this package wrote.
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

# A folder with one of these files was written by this package and may be replaced with force.
RUN_MARKERS = ("diagnosis.json", "training.json", "demo.json", "verdicts.json")


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of those that its numbers depend on."""
    packages = ("ntkdiag", "torch", "numpy", "scipy", "pandas")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def environment(device: torch.device | str = "cpu") -> dict[str, str]:
    """`versions` and hardware of this run: platform, device, number of threads."""
    import torch

    place = torch.device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine()
    return {
        **versions(),
        "platform": platform.system(),
        "device": f"{place.type} ({name})",
        "threads": str(torch.get_num_threads()),
    }


def digest(*tensors: torch.Tensor) -> str:
    """SHA-256 over the dtype, shape and bytes of tensors; equal tensors give equal strings."""
    import torch

    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        # Viewed as bytes, because numpy has no bfloat16.
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def is_file(path: Path | str) -> bool:
    """Whether there is a file of that name; also False for a name that no file can have, such as one of 300 letters."""
    try:
        return Path(path).is_file()
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


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

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
    """`write_text` of indented JSON with sorted keys; ValueError for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def jsonable(value: Any) -> Any:
    """`value` as JSON can hold it: tuples become lists, and NaN and infinities text that `float` reads back."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run of this package."""
    return any((folder / marker).is_file() for marker in RUN_MARKERS)


def check_free(path: Path | str, force: bool = False) -> None:
    """Refuse an output folder that is in use; called before any work is done.

    Raises:
        InputError: `path` is a file, a folder with files that this package did not write, a run (unless `force`
            is set), or a run that contains the current folder.
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
    """Rename `building` to `path`; an earlier run there is renamed first and deleted last."""
    if not path.exists():
        building.replace(path)
        return
    earlier = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
    path.replace(earlier)
    try:
        building.replace(path)
    except BaseException:
        earlier.replace(path)
        raise
    shutil.rmtree(earlier)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
