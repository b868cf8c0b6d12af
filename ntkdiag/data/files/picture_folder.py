"""A folder of pictures, with a class for each subfolder if there are any.

Of many pictures only the headers are read before they are drawn, for their sizes. If train/ and test/ (or val/) are all
there is in it, they are the training and the held-out part.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ntkdiag.data.pictures import PictureForm
from ntkdiag.data.pil_pictures import is_gray, sample_of
from ntkdiag.data.source import Source
from ntkdiag.errors import InputError, first_line, listed

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Formats that Pillow reads by itself; for others, such as EPS, it would run another program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Of more pictures than this, so many headers are read at first; the others are checked when they are drawn.
_HEADERS = 10_000
_TRAIN, _TEST = {"train", "training"}, {"test", "val", "valid", "validation"}


@dataclass(frozen=True)
class PictureReader:
    """Reads pictures as samples.

    Attributes:
        files: The pictures.
        form: What they become.
        shape: [channels, height, width] of all.
    """

    files: Sequence[Path]
    form: PictureForm
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: Sequence[int]) -> Tensor:
        """Pictures [len(rows), *shape]."""
        return torch.stack([self._sample(self.files[row]) for row in rows])

    def where(self, row: int) -> str:
        """As the name of the file."""
        return str(self.files[row])

    def _sample(self, file: Path) -> Tensor:
        with opened(file) as picture:
            gray = is_gray(picture, str(file))
            sample = sample_of(picture, self.shape[0] == 1, self.form)
        if tuple(sample.shape) != self.shape or (self.shape[0] == 1 and not gray):
            got = f"{'gray' if gray else 'coloured'}, {' × '.join(map(str, sample.shape[1:]))}"
            kind = "gray" if self.shape[0] == 1 else "any colours"
            wanted = f"a picture as the others are, {kind}, {' × '.join(map(str, self.shape[1:]))}"
            raise InputError(str(file), expected=wanted, got=got)
        return sample


def from_folder(folder: Path, form: PictureForm) -> Source:
    """The pictures of a folder and of all folders in it.

    Raises:
        InputError: no picture in it, a file that is none or cannot be read, links in a circle, or pictures of several sizes
            without one in `form`.
    """
    inside = {entry.name.lower(): entry for entry in _entries(folder)}
    parted = (
        bool(inside.keys() & _TRAIN)
        and inside.keys() <= _TRAIN | _TEST
        and all(map(Path.is_dir, inside.values()))
    )
    folders = [inside[min(inside.keys() & names)] for names in (_TRAIN, _TEST) if inside.keys() & names]
    folders = folders if parted else [folder]
    parts = [_files(one) for one in folders]
    shape = _shape([file for files in parts for file in files], form, folder)
    sources = [_source(folder, one, files, form, shape) for one, files in zip(folders, parts, strict=True)]
    first = sources[0]
    if len(sources) == 1:
        return first
    return Source(first.name, first.what, first.reader, first.description, first.labels, sources[1])


def _source(
    named: Path, folder: Path, files: list[Path], form: PictureForm, shape: tuple[int, ...]
) -> Source:
    labels, classes = _classes(folder, files)
    kind = "gray pictures" if shape[0] == 1 else "pictures in RGB"
    description = f"{kind}, {form.describe(torch.uint8)}{classes}"
    return Source(named.resolve().name, str(folder), PictureReader(files, form, shape), description, labels)


def _shape(files: list[Path], form: PictureForm, folder: Path) -> tuple[int, int, int]:
    """[channels, height, width] of samples: of one channel if all pictures are gray, else of three."""
    if not files:
        raise InputError(
            str(folder),
            expected="a folder with pictures in it",
            got="none",
            fix=f"It reads {', '.join(SUFFIXES)}.",
        )
    sizes: dict[tuple[int, int], Path] = {}
    gray = True
    for file in files[:: max(1, -(-len(files) // _HEADERS))]:
        with opened(file) as picture:
            sizes.setdefault((picture.height, picture.width), file)
            gray &= is_gray(picture, str(file))
    if form.size is None and len(sizes) > 1:
        raise InputError(
            str(folder),
            expected="pictures of one size",
            got=listed((f"{height} × {width} ({file.name})" for (height, width), file in sizes.items()), 3),
            fix="Choose one with {image_size}.",
            arguments={"image_size": None},
        )
    height, width = form.size or next(iter(sizes))
    return (1 if gray else 3), height, width


def _classes(folder: Path, files: list[Path]) -> tuple[Tensor | None, str]:
    """A label for each picture by its subfolder, in the order of their names; None unless every picture lies in one."""
    owners = [file.relative_to(folder).parts[:-1] for file in files]
    if not all(owners):
        return None, ""
    names = sorted({owner[0] for owner in owners})
    number = {name: place for place, name in enumerate(names)}
    return torch.tensor([number[owner[0]] for owner in owners]), f", labels by folder: {listed(names)}"


def _files(folder: Path) -> list[Path]:
    """Every file below a folder but hidden ones, in the order of their names; all have to be pictures by name."""
    found = sorted(_walk(folder, frozenset()))
    for file in found:
        if file.suffix.lower() not in SUFFIXES:
            raise InputError(
                str(file),
                expected=f"pictures alone ({', '.join(SUFFIXES)}) in a folder of pictures",
                got="another file",
            )
    return found


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    place = (status.st_dev, status.st_ino)
    if place in above:
        raise InputError(str(folder), expected="folders that end", got="a link to a folder that it lies in")
    for path in _entries(folder):
        if path.is_dir():
            yield from _walk(path, above | {place})
        elif path.is_file():
            yield path
        else:
            got = "a link that leads nowhere" if path.is_symlink() else "a pipe or a device"
            raise InputError(str(path), expected="a file or a folder", got=got)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, hidden files left out."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(str(folder), expected="a folder that can be read", got=error.strerror) from error


@contextmanager
def opened(file: Path) -> Iterator[Image]:
    """A picture of which only the header has been read; whatever Pillow raises in the block becomes one line."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as picture:
                yield picture
    except InputError:
        raise
    except Exception as error:  # for a damaged picture its readers raise whatever they come upon
        raise InputError(str(file), expected="a picture that can be read", got=first_line(error)) from error
