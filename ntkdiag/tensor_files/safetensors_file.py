"""Tensors of a .safetensors file, mapped into memory: what is not used is not read from the disk."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.errors import InputError, first_line


def read_safetensors(path: Path | str) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, on the CPU.

    Raises:
        InputError: the file is missing or damaged; a header that announces more than the file holds is damage.
    """
    path = Path(path)
    if not provenance.is_file(path):
        raise InputError(str(path), expected="an existing .safetensors file", got="no such file")
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(str(path), expected="a whole .safetensors file", got=first_line(error)) from error
