"""Samples in files: .npy, .npz, .safetensors, .pt, idx, and folders of pictures, each a `Source`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ntkdiag.data.files.idx import from_idx, idx_folder, is_idx
from ntkdiag.data.files.numpy_files import from_npy, from_npz, mapped_npy
from ntkdiag.data.files.picture_folder import from_folder
from ntkdiag.data.files.tensor_arrays import from_safetensors, from_torch
from ntkdiag.data.pictures import PictureForm
from ntkdiag.data.source import Source
from ntkdiag.errors import InputError
from ntkdiag.provenance import is_file

# Files with several arrays, of which one is chosen.
_ARCHIVES: dict[str, Callable[[Path, PictureForm, str | None], Source]] = {
    ".npz": from_npz,
    ".safetensors": from_safetensors,
    ".pt": from_torch,
    ".pth": from_torch,
}
KINDS = f".npy, {', '.join(_ARCHIVES)}, an idx file, or a folder of pictures"

__all__ = ["KINDS", "mapped_npy", "source_of_path"]


def source_of_path(path: Path, form: PictureForm, data_key: str | None = None) -> Source:
    """The source of a file or a folder.

    Raises:
        InputError: there is none, it is of no kind that is known, or it is damaged.
    """
    if read := _ARCHIVES.get(path.suffix.lower()):
        return read(_existing(path), form, data_key)
    if data_key is not None:
        raise InputError("data_key", expected="a file of several arrays beside it", got=str(path))
    if path.suffix.lower() == ".npy":
        return from_npy(_existing(path), form)
    if is_idx(path):
        return from_idx(_existing(path), form)
    if is_file(path):
        raise InputError(str(path), expected=f"data as {KINDS}", got="a file of another kind")
    try:
        folder = path.is_dir()
    except (OSError, ValueError):  # a name that no folder can have
        folder = False
    if not folder:
        raise InputError(str(path), expected=f"data as {KINDS}", got="no file or folder of that name")
    return idx_folder(path, form) or from_folder(path, form)


def _existing(path: Path) -> Path:
    if not is_file(path):
        raise InputError(str(path), expected="an existing file", got="no such file", fix=_neighbours(path))
    return path


def _neighbours(path: Path) -> str | None:
    """The files of the same kind in the folder of a missing file, as a remedy."""
    try:
        names = (
            sorted(file.name for file in path.parent.glob(f"*{path.suffix}"))[:5]
            if path.parent.is_dir()
            else []
        )
    except (OSError, ValueError):
        return None
    return f"In {path.parent}: {', '.join(names)}." if names else None
