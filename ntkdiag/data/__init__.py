"""Data to train and measure on: two data sets that need no download, and samples from .npy files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ntkdiag.data.dataset import Data
from ntkdiag.data.digits import digits
from ntkdiag.data.mixture import mixture
from ntkdiag.data.npy_files import from_npy
from ntkdiag.errors import require_one_of
from ntkdiag.provenance import is_file

__all__ = ["DATASETS", "Data", "digits", "from_npy", "load", "mixture"]

DATASETS: dict[str, Callable[..., Data]] = {"digits": digits, "mixture": mixture}


def load(name_or_path: str | Path, seed: int = 0) -> Data:
    """Load a data set by name, or samples from a .npy file.

    Args:
        name_or_path: "digits", "mixture", or a path that ends in .npy (see `from_npy`).
        seed: Seed of the split into training and held-out samples; of the draw, for the mixture.

    Returns:
        `Data`: float32 samples `train` [N, *shape] and `held_out` [M, *shape].

    Raises:
        InputError: unknown name, missing file, or a file without samples in it.

    Example:
        >>> digits = load("digits")
        >>> digits.train.shape, digits.held_out.shape
        (torch.Size([1400, 1, 8, 8]), torch.Size([397, 1, 8, 8]))
    """
    if Path(name_or_path).suffix == ".npy" or is_file(name_or_path):
        return from_npy(name_or_path, seed)
    name = require_one_of("data (or a path that ends in .npy)", str(name_or_path), DATASETS)
    return DATASETS[name](seed=seed)
