"""`as_data` and `load`: a data set from whatever people have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from ntkdiag.conditions import checked_conditions
from ntkdiag.data.arrays import ArrayReader, require_labels, value_dtype
from ntkdiag.data.dataset import Data
from ntkdiag.data.digits import digits
from ntkdiag.data.files import KINDS, mapped_npy, source_of_path
from ntkdiag.data.mixture import mixture
from ntkdiag.data.named_arrays import named_tensors, source_of_arrays
from ntkdiag.data.pictures import ImageSize, PictureForm, PixelRange
from ntkdiag.data.rows import has_rows, source_of_loader, source_of_rows, source_of_stream
from ntkdiag.data.source import Source, data_of
from ntkdiag.errors import InputError, kind_of, require_number, require_one_of, require_path

DATASETS: dict[str, Callable[..., Data]] = {"digits": digits, "mixture": mixture}
# Share of a file's samples that is held out, where the file does not set any apart itself.
_HELD_OUT_OF_FILES = 0.2

# What `as_data` takes: Data, tensor, array, path, Dataset, DataLoader, rows, a dict of arrays or of parts.
DataLike: TypeAlias = "Data | Tensor | np.ndarray[Any, Any] | str | Path | Mapping[str, Any] | Iterable[Any]"


def load(
    name_or_path: str | Path,
    seed: int = 0,
    *,
    image_size: ImageSize | None = None,
    pixel_range: PixelRange | None = None,
    data_key: str | None = None,
    held_out: float = _HELD_OUT_OF_FILES,
    labels: Any = None,
    cond: Mapping[str, Any] | None = None,
) -> Data:
    """Load a data set by name, or samples from a file or a folder. Nothing in it is run.

    Data of more than 256 MiB is read when it is drawn, from the rows or pictures that are drawn alone.

    Args:
        name_or_path: "digits", "mixture", or a path: .npy, .npz, .safetensors, .pt of a tensor or tensors by name, an idx
            file (.gz or not) or a folder of them as MNIST comes, or a folder of pictures with a class for each subfolder.
            Floating-point values are used as they are, as float32. uint8 values are pixels: [N, H, W] or [N, H, W, C]
            becomes [N, C, H, W], and 0…255 becomes [−1, 1].
        seed: Seed of the split into training and held-out samples; of the draw, for the mixture.
        image_size: Side of the pictures, or (height, width): they are scaled until they cover it (bilinear, antialiased),
            and the middle is cut out.
        pixel_range: What 0 and the highest value of a pixel become, if not −1 and 1.
        data_key: The array of samples in a file of several, where it is not plain which one.
        held_out: Share of the samples to hold out, where the file has no test part of its own.
        labels: A whole number for each sample, in the order of the file or folder: an array or the path of a .npy file.
        cond: Conditions by name, with a row for each sample: arrays or paths of .npy files.

    Returns:
        `Data`: samples `train` [N, *shape] and `held_out` [M, *shape], labels where there are any, and in `description` what
        was done to the samples.

    Raises:
        InputError: unknown name, missing or damaged file, one that cannot be read without running code, no samples in it,
            or labels or conditions that do not fit the samples.

    Example:
        >>> digits = load("digits")
        >>> digits.train.shape, digits.held_out.shape
        (torch.Size([1400, 1, 8, 8]), torch.Size([397, 1, 8, 8]))
        >>> np.save("pictures.npy", np.zeros((50, 32, 32, 3), dtype=np.uint8))
        >>> load("pictures.npy", image_size=16).description
        '50 samples; pixels 0 to 255 scaled to [-1, 1], resized to 16 × 16 (bilinear, ...); 10 of them are held out (seed 0)'
    """
    path = require_path("data", name_or_path)
    name = str(name_or_path)
    given = {
        "image_size": image_size, "pixel_range": pixel_range, "data_key": data_key, "labels": labels, "cond": cond,
    }  # fmt: skip
    if name in DATASETS:
        for option, value in given.items():
            if value is not None:
                raise InputError(option, expected=f"none beside the data set {name}", got=repr(value))
        return DATASETS[name](seed=seed)
    if not _is_path(name):
        require_one_of(f"data (or a path: {KINDS})", name, DATASETS)
    form = PictureForm.of(image_size, pixel_range)
    source = _with_rows(source_of_path(path, form, data_key), labels, cond)
    return data_of(source, _share(held_out), seed)


def as_data(
    given: DataLike,
    *,
    labels: Any = None,
    cond: Mapping[str, Any] | None = None,
    name: str | None = None,
    seed: int = 0,
    image_size: ImageSize | None = None,
    pixel_range: PixelRange | None = None,
    data_key: str | None = None,
    held_out: float | None = None,
) -> Data:
    """A data set from what people have; whatever takes data calls it.

    Args:
        given: `Data`, which is returned as it is; a tensor or an array [N, ...], or (samples, labels); a torch Dataset or
            DataLoader; a Hugging Face data set, or a dict of its parts; a list of samples; a dict of arrays, such as images
            and labels; or what `load` takes. Values are taken as `load` takes them, but float64 stays float64.
        labels: A whole number for each sample, where `given` has none.
        cond: Conditions of a network by name, such as text embeddings, with a row for each sample: tensors or arrays
            [N, ...].
        name: Name of the data in reports.
        seed, image_size, pixel_range, data_key: As in `load`.
        held_out: Share of the samples to hold out, where there is no test part. By default none of data in Python, and a
            fifth of files: only what evaluates a network needs them.

    Returns:
        `Data`.

    Raises:
        InputError: none of these, or as `load`.

    Example:
        >>> data = as_data(torch.zeros(50, 3, 8, 8), held_out=0.2)
        >>> data
        Data('data', shape=(3, 8, 8), train=40, held_out=10)
        >>> as_data(torch.zeros(50, 2), labels=torch.arange(50) % 5).labels[:7]
        tensor([0, 1, 2, 3, 4, 0, 1])
        >>> sorted(as_data(torch.zeros(50, 2), cond={"text": torch.ones(50, 7, 16)}).conditions)
        ['text']
    """
    if isinstance(given, Data):
        return given
    if isinstance(given, str | Path):
        share = _HELD_OUT_OF_FILES if held_out is None else held_out
        found = load(
            given,
            seed,
            image_size=image_size,
            pixel_range=pixel_range,
            data_key=data_key,
            held_out=share,
            labels=labels,
            cond=cond,
        )
        return found if name is None else replace(found, name=name)
    source = _source(given, PictureForm.of(image_size, pixel_range), data_key)
    source = _with_rows(source, labels, cond)
    return data_of(source if name is None else replace(source, name=name), _share(held_out or 0.0), seed)


def _source(given: Any, form: PictureForm, data_key: str | None) -> Source:
    if isinstance(given, Tensor | np.ndarray):
        return _of_array(given, form)
    if isinstance(given, Mapping):
        return _of_mapping(given, form, data_key)
    if (
        isinstance(given, tuple)
        and len(given) == 2
        and all(isinstance(one, Tensor | np.ndarray) for one in given)
    ):
        samples = _of_array(given[0], form)
        return replace(samples, labels=require_labels("labels", given[1], len(samples.reader)))
    if hasattr(given, "dataset") and hasattr(given, "batch_size"):
        return source_of_loader(given, form, data_key)
    if has_rows(given):
        return source_of_rows(given, form, data_key)
    if isinstance(given, Iterable) and not isinstance(given, bytes):
        return source_of_stream(given, form, data_key)
    raise InputError(
        "data",
        expected="ntkdiag.data.Data, a tensor or array [N, ...], a Dataset, a DataLoader, rows of samples, or a path",
        got=kind_of(given),
    )


def _with_rows(source: Source, labels: Any, cond: Mapping[str, Any] | None) -> Source:
    """The source with labels and conditions, arrays or paths of .npy files."""
    count = len(source.reader)
    if labels is not None:
        source = replace(source, labels=require_labels("labels", _array_of(labels), count))
    if cond is not None:
        if not isinstance(cond, Mapping):
            raise InputError("cond", expected="a mapping of names to arrays", got=type(cond).__name__)
        values = {name: _array_of(each) for name, each in cond.items()}
        source = replace(source, cond=checked_conditions("cond", values, count))
    if source.test is not None and (labels is not None or cond is not None):
        raise InputError(
            "labels" if labels is not None else "cond",
            expected="none beside data with a test part of its own, whose samples would have none",
            got="given",
            fix="Give the parts themselves to ntkdiag.data.Data.",
        )
    return source


def _array_of(given: Any) -> Any:
    """An array as it is, or that of a .npy file."""
    return mapped_npy(Path(given)) if isinstance(given, str | Path) else given


def _of_array(array: Any, form: PictureForm) -> Source:
    return Source(
        "data", "data", ArrayReader(array, form, "data", wide=True), form.describe(value_dtype(array))
    )


def _of_mapping(given: Mapping[str, Any], form: PictureForm, data_key: str | None) -> Source:
    """Arrays by name, or parts such as train and test that are data sets themselves."""
    train = given.get("train")
    if train is not None and not isinstance(train, Tensor | np.ndarray):
        test = next((given[name] for name in ("test", "validation", "val") if name in given), None)
        source = _source(train, form, data_key)
        return source if test is None else replace(source, test=_source(test, form, data_key))
    return source_of_arrays("data", "data", named_tensors(given), form, data_key, wide=True)


def _is_path(text: str) -> bool:
    """Whether a text is meant as a path: it has a suffix or a folder, or it is there."""
    try:
        return bool(Path(text).suffix) or os.sep in text or Path(text).exists()
    except (OSError, ValueError):
        return True


def _share(held_out: float) -> float:
    return require_number("held_out", held_out, at_least=0, below=1)
