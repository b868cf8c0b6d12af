"""Samples from a .npy file.

The file is read as data, never as code, and refused if a network could not be trained on its samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ntkdiag.data.dataset import Data, check_samples, held_out_count, split
from ntkdiag.errors import InputError, first_line
from ntkdiag.provenance import is_file

_HELD_OUT_SHARE = 0.2


def from_npy(path: Path | str, seed: int = 0) -> Data:
    """Load samples from a .npy file and hold a fifth of them out.

    Args:
        path: A .npy file of shape [N, ...]. Floating-point values are used unchanged; uint8 values are scaled
            from 0..255 to [-1, 1]. Images are [N, channels, height, width].
        seed: Seed of the split.

    Returns:
        Data in float32, named after the file.

    Raises:
        InputError: no such file, not a .npy file, Python objects inside, another dtype, fewer than two
            samples, or a NaN or infinity (the first bad sample is named by its row in the file).
    """
    path = Path(path)
    array = _read(path)
    if array.ndim < 2 or len(array) < 2 or array.size == 0:
        raise InputError(
            str(path), expected="at least two samples, [N, ...]", got=f"shape {list(array.shape)}"
        )
    with np.errstate(over="ignore"):  # a value beyond float32 becomes inf, which check_samples refuses
        samples = torch.from_numpy(array.astype(np.float32))
    if array.dtype == np.uint8:
        samples = samples / 127.5 - 1
    check_samples(str(path), samples)
    return Data(path.stem, *split(samples, held_out_count(len(samples), _HELD_OUT_SHARE), seed))


def _read(path: Path) -> np.ndarray:
    """The array in a .npy file. Memory mapping checks the header against the file's size before memory is allocated."""
    if not is_file(path):
        raise InputError(
            str(path), expected="an existing .npy file", got="no such file", fix=_neighbours(path)
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # for a damaged header numpy raises whatever its parser or zipfile raises
        raise InputError(
            str(path),
            expected="a whole .npy file without Python objects",
            got=first_line(error),
            fix="Save it with numpy.save(path, array) from a float or uint8 array.",
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(str(path), expected="a .npy file", got="an archive of several arrays (.npz)")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise InputError(str(path), expected="a floating-point or uint8 array", got=f"dtype {array.dtype}")
    return array


def _neighbours(path: Path) -> str | None:
    """The .npy files in the folder of a missing file, as a remedy."""
    try:
        names = sorted(file.name for file in path.parent.glob("*.npy"))[:5] if path.parent.is_dir() else []
    except OSError:
        return None
    return f"In {path.parent}: {', '.join(names)}." if names else None
