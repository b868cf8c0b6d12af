"""Samples in .safetensors files and in what `torch.save` wrote: a tensor, (samples, labels), or a dict of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ntkdiag.data.named_arrays import named_tensors, source_of_arrays
from ntkdiag.data.pictures import PictureForm
from ntkdiag.data.source import Source
from ntkdiag.errors import InputError
from ntkdiag.tensor_files import read_safetensors, read_torch


def from_safetensors(path: Path, form: PictureForm, data_key: str | None = None) -> Source:
    """The samples of a .safetensors file; only those that are drawn are read.

    Raises:
        InputError: a damaged file, or no tensor of samples.
    """
    return source_of_arrays(path.stem, str(path), named_tensors(read_safetensors(path)), form, data_key)


def from_torch(path: Path, form: PictureForm, data_key: str | None = None) -> Source:
    """The samples of a file of `torch.save`; only those that are drawn are read, and nothing is run.

    Raises:
        InputError: a damaged file, one that cannot be read without running code, or no tensor of samples.
    """
    tensors = _by_name(read_torch(path))
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and _repeats(tensor):
            raise InputError(
                str(path),
                expected="tensors with their own numbers",
                got=f"{name}, which repeats a few of them",
            )
    return source_of_arrays(path.stem, str(path), named_tensors(tensors), form, data_key)


def _by_name(content: Any) -> Mapping[str, Any]:
    """Tensors by name: of (samples, labels) these names, as torchvision's own files have it."""
    if isinstance(content, Mapping):
        return content
    if isinstance(content, Tensor):
        return {"samples": content}
    if isinstance(content, list | tuple):
        names = ("samples", "labels", *map(str, range(2, len(content))))
        return dict(zip(names, content, strict=False))
    return {}


def _repeats(tensor: Tensor) -> bool:
    """Whether a tensor announces more numbers than it has: a view in which a few stand for many."""
    plain = not tensor.is_meta and not tensor.is_sparse
    return plain and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
