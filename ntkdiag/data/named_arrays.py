"""Which of several named arrays are the samples, which are their labels, and which are set apart for testing.

So .npz, .safetensors and .pt files, and dicts of arrays in Python, name them: x_train and y_train beside x_test and
y_test, images and labels, or any one array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ntkdiag.data.arrays import Array, ArrayReader, labels_of, value_dtype
from ntkdiag.data.pictures import PictureForm
from ntkdiag.data.source import Source
from ntkdiag.errors import InputError, did_you_mean, listed

_SAMPLES = ("images", "image", "samples", "data", "x", "inputs", "pixel_values", "arr_0")
_LABELS = {"label", "labels", "y", "target", "targets", "class", "classes"}
_TEST = ("test", "val", "valid", "validation", "held_out")


@dataclass(frozen=True)
class Named:
    """An array that is loaded when it is needed.

    Attributes:
        shape: Its shape.
        kind: "samples" (floating point or uint8), "labels" (whole numbers), or what else it is.
        load: Gives it.
    """

    shape: tuple[int, ...]
    kind: str
    load: Callable[[], Array]


def source_of_arrays(
    name: str,
    what: str,
    arrays: Mapping[str, Named],
    form: PictureForm,
    data_key: str | None = None,
    wide: bool = False,
) -> Source:
    """The source of the arrays of a file or a dict.

    Args:
        name: Name of the data.
        what: What errors call it.
        arrays: The arrays by name.
        form: What pixels become.
        data_key: Name of the array of samples, where it is not the only one.
        wide: As in `ArrayReader`.

    Raises:
        InputError: no array of samples, several, or none of the name that was given.
    """
    chosen = _samples_name(what, arrays, data_key)
    test = _counterpart(chosen, arrays)
    part = None if test is None else _part(name, f"{what}: {test}", test, arrays, form, wide)
    return _part(name, f"{what}: {chosen}" if len(arrays) > 1 else what, chosen, arrays, form, wide, part)


def _part(
    name: str,
    what: str,
    chosen: str,
    arrays: Mapping[str, Named],
    form: PictureForm,
    wide: bool,
    test: Source | None = None,
) -> Source:
    array = arrays[chosen].load()
    reader = ArrayReader(array, form, what, wide)
    label, labels = _labels(chosen, arrays)
    said = [f"array '{chosen}'" if len(arrays) > 1 else "", form.describe(value_dtype(array)), label]
    return Source(name, what, reader, ", ".join(filter(None, said)), labels, test)


def _samples_name(what: str, arrays: Mapping[str, Named], data_key: str | None) -> str:
    if data_key is not None:
        if data_key in arrays:
            return data_key
        raise InputError(
            "data_key",
            expected=f"an array of {what}: {listed(arrays) or 'it has none'}",
            got=repr(data_key),
            fix=did_you_mean(data_key, arrays),
        )
    fitting = [name for name, one in arrays.items() if one.kind == "samples" and len(one.shape) >= 2]
    tests = {_counterpart(name, arrays) for name in fitting}
    found = [name for name in fitting if name not in tests]
    preferred = [name for name in found if name.lower() in _SAMPLES]
    for names in (found, preferred):
        if len(names) == 1:
            return names[0]
    if not found:
        raise InputError(
            what,
            expected="an array of samples [N, ...], floating point or uint8",
            got=listed(f"{name} {list(one.shape)} of {one.kind}" for name, one in arrays.items())
            or "no array",
        )
    raise InputError(
        what,
        expected="one array of samples",
        got=listed(f"{name} {list(arrays[name].shape)}" for name in found),
        fix="Choose one with {data_key}.",
        arguments={"data_key": None},
    )


def _counterpart(name: str, arrays: Mapping[str, Named]) -> str | None:
    """The array that is to be held out where the name says that this one is for training: x_test beside x_train."""
    if not re.search(r"(^|[^a-z])train", name, re.IGNORECASE):
        return None
    for word in _TEST:
        other = re.sub("train(ing)?", word, name, flags=re.IGNORECASE)
        if other in arrays and arrays[other].shape[1:] == arrays[name].shape[1:]:
            return other
    return None


def _labels(chosen: str, arrays: Mapping[str, Named]) -> tuple[str, Tensor | None]:
    """What is said of the labels, and the labels: whole numbers, one for each sample."""
    count = arrays[chosen].shape[0]
    whole = [
        name
        for name, one in arrays.items()
        if name != chosen and one.kind == "labels" and one.shape in ((count,), (count, 1))
    ]
    named = [name for name in whole if _words(name) & _LABELS]
    same_part = [name for name in named if _words(chosen) & _words(name) & {"train", "training", *_TEST}]
    for names in (same_part, named, whole):
        if len(names) == 1:
            labels = labels_of(arrays[names[0]].load(), count)
            return ("" if labels is None else f"labels from '{names[0]}'"), labels
    return "", None


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def named_tensors(arrays: Mapping[str, Any]) -> dict[str, Named]:
    """The tensors and numpy arrays of a dict by name; whatever else it holds is left out."""
    return {
        str(name): Named(tuple(array.shape), kind_of(array.dtype), lambda array=array: array)  # type: ignore[misc]
        for name, array in arrays.items()
        if hasattr(array, "shape") and hasattr(array, "dtype")
    }


def kind_of(dtype: Any) -> str:
    """Whether values of a type can be samples or labels."""
    text = str(dtype).removeprefix("torch.")
    if text == "uint8" or "float" in text:
        return "samples"
    if re.fullmatch(r"u?int\d+", text):
        return "labels"
    return {"object": "Python objects"}.get(text, text)
