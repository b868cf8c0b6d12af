"""Rows of other people's data sets: torch's Dataset and DataLoader, those of Hugging Face, lists of samples.

A row is a sample, (sample, label, ...), or a mapping of columns such as image and label; the sample a tensor, an array, a
picture of Pillow, or nested lists of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntkdiag.data.arrays import converted, labels_of, value_dtype
from ntkdiag.data.pictures import PictureForm
from ntkdiag.data.pil_pictures import is_gray, is_picture, sample_of
from ntkdiag.data.source import SMALL, Source
from ntkdiag.errors import InputError, did_you_mean, first_line, listed

_SAMPLES = ("image", "img", "images", "pixel_values", "sample", "samples", "x", "data", "input", "inputs")
_LABELS = ("label", "labels", "y", "target", "targets", "class", "fine_label", "coarse_label")
# Most rows that are taken of a source that has no numbers for them.
_MOST_STREAMED = 2**16


class RowReader:
    """Reads rows by their numbers.

    Args:
        rows: Something with a length and rows by number.
        form: What pixels become.
        data_key: The column of samples, where rows have several and it is not plain which one.

    Raises:
        InputError: the first row cannot be read or has no sample.
    """

    def __init__(self, rows: Any, form: PictureForm, data_key: str | None) -> None:
        self._rows, self._form, self._key = rows, form, data_key
        self._gray: bool | None = None
        first = self.sample(0)
        self.shape, self.dtype = tuple(first.shape), first.dtype
        stored = parts_of(self._row(0), data_key)[0]
        # The type of values in the rows.
        self.stored = torch.uint8 if is_picture(stored) else value_dtype(as_array(stored, "data"))

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, row: int) -> str:
        """As "row 7"."""
        return f"row {row}"

    def read(self, rows: Sequence[int]) -> Tensor:
        """Samples [len(rows), *shape]."""
        samples = [self.sample(row) for row in rows]
        for row, sample in zip(rows, samples, strict=True):
            if tuple(sample.shape) != self.shape:
                raise InputError(
                    f"row {row} of the data",
                    expected=f"a sample of shape {list(self.shape)}, as in row 0",
                    got=list(sample.shape),
                    fix="Give pictures one size with {image_size}.",
                    arguments={"image_size": None},
                )
        return torch.stack(samples).to(self.dtype)

    def sample(self, number: int) -> Tensor:
        """One sample, without its label."""
        return self._converted(parts_of(self._row(number), self._key)[0], f"row {number} of the data")

    def every(self) -> list[Any]:
        """All rows as they are."""
        return [self._row(number) for number in range(len(self))]

    def labels(self) -> Tensor | None:
        """The labels of all rows, by reading them; None if they have none."""
        found = [parts_of(self._row(number), self._key)[1] for number in range(len(self))]
        return None if any(label is None for label in found) else labels_of(found, len(found))

    def _row(self, number: int) -> Any:
        try:
            with own_randomness(number):
                return self._rows[number]
        except Exception as error:  # of a class of the user's
            raise InputError(
                f"row {number} of the data", expected="a row that can be read", got=first_line(error)
            ) from error

    def _converted(self, sample: Any, what: str) -> Tensor:
        if not is_picture(sample):
            return converted(as_array(sample, what)[None], self._form, what, wide=True)[0]
        gray = is_gray(sample, what)
        if self._gray is None:
            self._gray = gray
        if self._gray and not gray:
            raise InputError(what, expected="a gray picture, as in row 0", got="one with colours")
        return sample_of(sample, self._gray, self._form)


def source_of_rows(rows: Any, form: PictureForm, data_key: str | None = None) -> Source:
    """The source of rows that have numbers.

    Raises:
        InputError: no rows, or a first row without a sample.
    """
    if len(rows) == 0:
        raise InputError("data", expected="at least one row", got=f"an empty {type(rows).__name__}")
    reader, labels = RowReader(rows, form, data_key), _column_of_labels(rows)
    description = f"rows of {type(rows).__name__}, {form.describe(reader.stored)}"
    if len(rows) * reader.dtype.itemsize * math.prod(reader.shape) <= SMALL:
        reader = RowReader(reader.every(), form, data_key)  # read once, for samples and labels
        labels = reader.labels() if labels is None else labels
    return Source(_name(rows), "data", reader, description, labels)


def source_of_stream(
    rows: Iterable[Any], form: PictureForm, data_key: str | None = None, kind: str = ""
) -> Source:
    """The source of rows that come one after the other: the first ones, as many as are small in all.

    Args:
        rows: Any iterable.
        form, data_key: As of a `RowReader`.
        kind: What the rows are called; by default as their class.

    Raises:
        InputError: no row, or one without a sample.
    """
    taken: list[Any] = []
    budget, rest = SMALL, False
    with own_randomness():
        for row in islice(_steps(rows), _MOST_STREAMED + 1):
            sample = parts_of(row, data_key)[0]
            budget -= 4 * math.prod(
                (*sample.size, 3) if is_picture(sample) else as_array(sample, "data").shape
            )
            rest = budget < 0 or len(taken) == _MOST_STREAMED
            if rest:
                break
            taken.append(row)
    source = source_of_rows(taken, form, data_key)
    said = f"{'the first rows of a longer' if rest else 'rows of'} {kind or type(rows).__name__}"
    return replace(source, name=_name(rows), description=f"{said}, {source.description.partition(', ')[2]}")


def source_of_loader(loader: Any, form: PictureForm, data_key: str | None = None) -> Source:
    """The source of a torch DataLoader: the rows of its data set by number where it takes them all, else what it yields.

    Raises:
        InputError: as `source_of_rows`.
    """
    kinds = {type(getattr(loader, name, None)).__name__ for name in ("sampler", "batch_sampler")}
    batched, kind = (
        loader.batch_size is not None,
        f"{type(loader.dataset).__name__}, as its DataLoader gives them",
    )
    if (
        has_rows(loader.dataset)
        and batched
        and kinds <= {"SequentialSampler", "RandomSampler", "BatchSampler"}
    ):
        source = source_of_rows(_Collated(loader), form, data_key)
        description = f"rows of {kind}, {source.description.partition(', ')[2]}"
    else:
        source = source_of_stream(_Loaded(loader), form, data_key, kind)
        description = source.description
    return replace(source, name=_name(loader.dataset), description=description)


class _Loaded:
    """What a loader yields, row by row; it draws its order when the first row is asked for."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            yield from [batch] if self._one_by_one else rows_of_batch(batch)

    @property
    def _one_by_one(self) -> bool:
        return self._loader.batch_size is None and self._loader.batch_sampler is None


class _Collated:
    """The rows of a loader's data set, each as the loader would yield it in a batch of one."""

    def __init__(self, loader: Any) -> None:
        self._dataset, self._collate = loader.dataset, loader.collate_fn
        if hasattr(self._dataset, "targets"):
            self.targets = self._dataset.targets

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, number: int) -> Any:
        return next(rows_of_batch(self._collate([self._dataset[number]])))


def rows_of_batch(batch: Any) -> Iterator[Any]:
    """The rows of a batch: of a tensor, of (samples, labels), or of a mapping of columns."""
    if isinstance(batch, Mapping):
        columns = {name: values for name, values in batch.items() if hasattr(values, "__getitem__")}
        for number in range(min(map(len, columns.values()), default=0)):
            yield {name: values[number] for name, values in columns.items()}
    elif isinstance(batch, list | tuple):
        yield from zip(*batch, strict=False)
    else:
        yield from batch


def parts_of(row: Any, data_key: str | None) -> tuple[Any, Any]:
    """The sample and the label of a row; the label is None if it has none.

    Raises:
        InputError: a mapping in which it is not plain which column is the sample.
    """
    if isinstance(row, Mapping):
        label = next((row[name] for name in _LABELS if name in row), None)
        return row[_sample_column(row, data_key)], label
    if isinstance(row, tuple) or (
        isinstance(row, list) and row and not _is_number(row[0]) and _is_number(row[-1])
    ):
        return (row[0], row[1] if len(row) > 1 else None) if row else (row, None)
    return row, None


def _sample_column(row: Mapping[str, Any], data_key: str | None) -> str:
    if data_key is not None:
        if data_key in row:
            return data_key
        raise InputError(
            "data_key",
            expected=f"a column of the rows: {listed(map(str, row))}",
            got=repr(data_key),
            fix=did_you_mean(data_key, map(str, row)),
        )
    for name in _SAMPLES:
        if name in row:
            return name
    fitting = [name for name, value in row.items() if is_picture(value) or getattr(value, "ndim", 0) > 0]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        "rows of the data",
        expected="one column of samples, such as image",
        got=listed(map(str, row)),
        fix="Choose one with {data_key}.",
        arguments={"data_key": None},
    )


def as_array(sample: Any, what: str) -> np.ndarray[Any, Any] | Tensor:
    """A sample as an array or a tensor.

    Raises:
        InputError: it is neither, nor nested lists of numbers.
    """
    if isinstance(sample, Tensor | np.ndarray):
        return sample
    try:
        array = np.asarray(sample)
    except ValueError as error:  # lists of different lengths
        raise InputError(what, expected="a sample of numbers", got=first_line(error)) from error
    if array.dtype.kind not in "iuf" or isinstance(sample, str | bytes):
        raise InputError(
            what, expected="a tensor, an array, a picture, or lists of numbers", got=type(sample).__name__
        )
    return array


def has_rows(value: Any) -> bool:
    """Whether a value has a length and rows by number."""
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, Mapping | str | bytes)
    )


@contextmanager
def own_randomness(seed: int = 0) -> Iterator[None]:
    """Random transformations of a user's data set draw from a seed of their own, and torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _steps(rows: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from rows
    except InputError:
        raise
    except Exception as error:  # of a class of the user's
        raise InputError("data", expected="rows that can be read", got=first_line(error)) from error


def _column_of_labels(rows: Any) -> Tensor | None:
    """Labels that are there without reading a row: `targets` of torchvision, a column of Hugging Face."""
    targets = getattr(rows, "targets", None)
    if targets is not None:
        return labels_of(targets, len(rows))
    columns = getattr(rows, "column_names", None)
    name = next((name for name in _LABELS if isinstance(columns, Sequence) and name in columns), None)
    return None if name is None else labels_of(list(rows[name]), len(rows))


def _name(rows: Any) -> str:
    """As the class of the rows is called, if it is not Python's own."""
    return "data" if type(rows).__module__ == "builtins" else type(rows).__name__


def _is_number(value: Any) -> bool:
    return getattr(value, "ndim", None) == 0 or isinstance(value, int | float)
