"""Samples and labels from arrays and tensors, in memory or mapped from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ntkdiag.data.pictures import PEAKS, PictureForm
from ntkdiag.errors import InputError

Array: TypeAlias = "np.ndarray[Any, Any] | Tensor"


class ArrayReader:
    """Reads rows of an array as samples.

    Args:
        array: [N, ...], uint8 or floating point.
        form: What pixels become.
        what: Name of the array in errors.
        wide: Whether float64 stays float64, as for data in memory; files are read as float32.

    Raises:
        InputError: another type of values, no sample or no dimension, or a form that does not fit.
    """

    def __init__(self, array: Array, form: PictureForm, what: str, wide: bool = False) -> None:
        self._array, self._form, self._what, self._wide = array, form, what, wide
        require_samples(what, array)
        first = self.read([0])
        self.shape, self.dtype = tuple(first.shape[1:]), first.dtype
        same = wide and form.size is None and value_dtype(array) == first.dtype
        # The array itself as a tensor, where it is in memory and has the samples' own values.
        self.unchanged = _shared(array) if same else None

    def __len__(self) -> int:
        return len(self._array)

    def read(self, rows: Sequence[int]) -> Tensor:
        """Samples [len(rows), *shape]."""
        chosen = self._array[torch.as_tensor(rows) if isinstance(self._array, Tensor) else np.asarray(rows)]
        return converted(chosen, self._form, self._what, self._wide)

    def where(self, row: int) -> str:
        """As "sample 7"."""
        return f"sample {row}"


def converted(array: Array, form: PictureForm, what: str, wide: bool = False) -> Tensor:
    """The samples of an array in memory; the arguments are those of `ArrayReader`."""
    require_samples(what, array)
    values = array.detach() if isinstance(array, Tensor) else _native(array)
    return form.samples(values.float() if values.dtype == torch.float64 and not wide else values)


def require_samples(what: str, array: Array) -> None:
    """Refuse arrays whose values or shape are not those of samples.

    Raises:
        InputError: otherwise.
    """
    if not _is_numeric(array.dtype):
        got = f"dtype {str(array.dtype).removeprefix('torch.')}"
        raise InputError(what, expected="a floating-point or uint8 array", got=got)
    if isinstance(array, Tensor) and (array.layout != torch.strided or array.is_meta):
        raise InputError(what, expected="a plain tensor", got=f"{array.layout} on {array.device}")
    if array.ndim < 2 or 0 in array.shape:
        raise InputError(
            what,
            expected="[N, ...] with at least one sample and one dimension",
            got=f"shape {list(array.shape)}",
        )


def labels_of(values: Any, count: int) -> Tensor | None:
    """Labels as int64 [N]; None if `values` are not one whole number for each of `count` samples."""
    try:
        found = values if isinstance(values, Tensor) else torch.from_numpy(_native_labels(np.asarray(values)))
    except (TypeError, ValueError, OverflowError):
        return None
    whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    flat = found.reshape(-1) if found.ndim == 2 and found.shape[1] == 1 else found
    return flat.detach().cpu().long() if whole and flat.ndim == 1 and len(flat) == count else None


def require_labels(what: str, values: Any, count: int) -> Tensor:
    """`labels_of`, or an error."""
    found = labels_of(values, count)
    if found is None:
        shape = list(getattr(values, "shape", [])) or type(values).__name__
        got = f"{getattr(values, 'dtype', '')} {shape}".strip()
        raise InputError(what, expected=f"{count} whole numbers, one for each sample", got=got)
    return found


def value_dtype(array: Array) -> torch.dtype:
    """The type of an array's values, as torch names it."""
    if isinstance(array, Tensor):
        return array.dtype
    return torch.from_numpy(np.empty(0, array.dtype.newbyteorder("="))).dtype


def _is_numeric(dtype: Any) -> bool:
    if isinstance(dtype, torch.dtype):
        return dtype in PEAKS or dtype.is_floating_point
    return dtype == np.uint8 or (np.issubdtype(dtype, np.floating) and dtype.itemsize <= 8)


def _native(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor of its own, in the machine's order of bytes."""
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy())


def _shared(array: Array) -> Tensor | None:
    """The tensor of an array's own memory; None if torch cannot use that memory."""
    if isinstance(array, Tensor):
        return array.detach()
    usable = array.flags.writeable and array.dtype.isnative and all(step >= 0 for step in array.strides)
    return torch.from_numpy(array) if usable else None


def _native_labels(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:  # torch has few operations on these
        values = values.astype(np.int64)
    return np.array(
        values, dtype=values.dtype.newbyteorder("=")
    )  # a copy, since a mapped file is not writable
