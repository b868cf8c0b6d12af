"""Arrays of .npy and .npz files: read as data, never as code, and mapped into memory where the format allows it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ntkdiag.data.arrays import ArrayReader, value_dtype
from ntkdiag.data.named_arrays import Named, kind_of, source_of_arrays
from ntkdiag.data.pictures import PictureForm
from ntkdiag.data.source import Source
from ntkdiag.errors import InputError, first_line

# Deflate makes at most 1,032 bytes of one.
_MOST_EXPANDED = 1100


def from_npy(path: Path, form: PictureForm) -> Source:
    """The samples of a .npy file; only the rows that are drawn are read.

    Raises:
        InputError: not a whole .npy file, Python objects in it, or an array that is no samples.
    """
    array = mapped_npy(path)
    return Source(
        path.stem, str(path), ArrayReader(array, form, str(path)), form.describe(value_dtype(array))
    )


def from_npz(path: Path, form: PictureForm, data_key: str | None = None) -> Source:
    """The samples of a .npz file, with their labels and a test part if it has them.

    Raises:
        InputError: not a whole .npz file, or no array of samples without Python objects in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [one.filename for one in archive.infolist() if one.filename.endswith(".npy")]
            arrays = {name.removesuffix(".npy"): _member(path, archive, name) for name in names}
    except Exception as error:  # for a damaged archive the readers raise whatever they come upon
        raise _damaged(path, error) from error
    return source_of_arrays(path.stem, str(path), arrays, form, data_key)


def mapped_npy(path: Path) -> np.ndarray[Any, Any]:
    """The array of a .npy file. Mapping checks the header against the file's size before memory is allocated.

    Raises:
        InputError: no whole .npy file, or Python objects in it.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # for a damaged header numpy raises whatever its parser or zipfile raises
        raise InputError(
            str(path),
            expected="a whole .npy file without Python objects",
            got=_reason(error),
            fix="Save it with numpy.save(path, array) from a float or uint8 array.",
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(str(path), expected="a .npy file", got="an archive of several arrays (.npz)")
    return array


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Named:
    """An array of a .npz file, of which the header is read now and the rest when it is needed."""
    info = archive.getinfo(name)
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read: Callable[..., Any] = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
        shape, _, dtype = read(stream)
        start = stream.tell()
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if not dtype.hasobject and (
        start + size != info.file_size or size > _MOST_EXPANDED * max(info.compress_size, 1)
    ):
        raise ValueError(f"{name} announces {size:,} bytes, and has others")

    def load() -> np.ndarray[Any, Any]:
        try:
            with np.load(path, allow_pickle=False) as file:
                return np.asarray(file[name.removesuffix(".npy")])
        except Exception as error:
            raise _damaged(path, error) from error

    return Named(tuple(shape), kind_of(dtype), load)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        str(path), expected="a whole .npz file without Python objects in its samples", got=_reason(error)
    )


def _reason(error: Exception) -> str:
    """What numpy says, without its advice to run code from the file, which it also gives for files of another kind."""
    said = first_line(error)
    return "Python objects, or something else than numbers" if "pickle" in said else said
