"""Small files of data, as people have them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def pixels(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_idx(path: Path, array: Any, kind: str = "u1") -> None:
    """An idx file, written by the description of the format."""
    header = bytes([0, 0, _CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(f">{kind}").tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, ending: str = "") -> tuple[Any, Any]:
    """Pictures and labels of both parts, as MNIST comes; returns those of the training part."""
    folder.mkdir(exist_ok=True)
    for part, count in (("train", 30), ("t10k", 12)):
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(folder / f"{part}-images-idx3-ubyte{ending}", pixels(count, 5, 4, seed=count))
        write_idx(folder / f"{part}-labels-idx1-ubyte{ending}", labels)
    return pixels(30, 5, 4, seed=30), np.arange(30) % 10


def write_picture(path: Path, array: Any, mode: str | None = None) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(path)
