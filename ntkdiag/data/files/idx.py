"""idx files, the format of MNIST, Fashion-MNIST and EMNIST: plain ones are mapped into memory, those in gzip are read whole.

Format: two zero bytes, a code of the type, the number of dimensions, each dimension as a big-endian 32-bit integer, and
the values.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ntkdiag.data.arrays import ArrayReader, labels_of, value_dtype
from ntkdiag.data.pictures import PictureForm
from ntkdiag.data.source import Source
from ntkdiag.errors import InputError, first_line

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-train-images-idx3-ubyte.gz, mine.idx
_NAME = re.compile(r"[-.]idx(\d(-\w+)?)?(\.gz)?$")
_PART = 2**20


def is_idx(path: Path) -> bool:
    """Whether a file has the name of an idx file."""
    return bool(_NAME.search(path.name))


def from_idx(path: Path, form: PictureForm) -> Source:
    """The samples of an idx file, with the labels of the file beside it that is named for them.

    Raises:
        InputError: a damaged file, or values that are no samples.
    """
    array = read_idx(path)
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    labels, said = None, ""
    if beside != path and (other := _existing(beside)) is not None:
        labels = labels_of(read_idx(other), len(array))
        if labels is None:
            raise InputError(
                str(other), expected=f"{len(array)} labels, as many as pictures", got="another number of them"
            )
        said = f", labels from {other.name}"
    name = _NAME.sub("", path.name)
    description = form.describe(value_dtype(array)) + said
    return Source(name, str(path), ArrayReader(array, form, str(path)), description, labels)


def idx_folder(folder: Path, form: PictureForm) -> Source | None:
    """The source of a folder with train-images and t10k-images (or test-images) in it; None if it has no such files."""
    files = sorted(file for file in folder.iterdir() if is_idx(file) and "images" in file.name)
    chosen = _only(folder, [file for file in files if "train" in file.name])
    held_out = _only(folder, [file for file in files if re.search("t10k|test", file.name)])
    if chosen is None:
        return None
    source = from_idx(chosen, form)
    return Source(
        folder.resolve().name,
        str(chosen),
        source.reader,
        source.description,
        source.labels,
        None if held_out is None else from_idx(held_out, form),
    )


def read_idx(path: Path) -> np.ndarray[Any, Any]:
    """The array of an idx file.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                return _unpacked(stream)
        with path.open("rb") as stream:
            dtype, shape, start = _header(stream)
        if path.stat().st_size != start + _bytes(dtype, shape):
            raise ValueError("another number of values than it announces")
        return np.memmap(path, dtype, "r", start, shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(str(path), expected="a whole idx file", got=first_line(error)) from error


def _unpacked(stream: Any) -> np.ndarray[Any, Any]:
    dtype, shape, _ = _header(stream)
    wanted = _bytes(dtype, shape)
    content = bytearray()  # grows with what there is, whatever the header announces
    while len(content) <= wanted and (part := stream.read(min(_PART, wanted + 1 - len(content)))):
        content += part
    if len(content) != wanted:
        raise ValueError("another number of values than it announces")
    return np.frombuffer(content, dtype).reshape(shape)


def _header(stream: Any) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """The type, the shape, and where the values begin."""
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES:
        raise ValueError("other bytes at its start")
    sizes = stream.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise ValueError("an end within its header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    return np.dtype(_TYPES[start[2]]), shape, 4 + len(sizes)


def _bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def _existing(path: Path) -> Path | None:
    """The file, or the same with or without .gz."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return next((one for one in (path, other) if one.is_file()), None)


def _only(folder: Path, files: list[Path]) -> Path | None:
    if len({file.name.removesuffix(".gz") for file in files}) > 1:
        raise InputError(
            str(folder),
            expected="one idx file of training pictures",
            got=", ".join(file.name for file in files),
            fix="Name the file itself.",
        )
    return files[0] if files else None
