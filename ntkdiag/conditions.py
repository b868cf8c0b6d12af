"""Conditions of a network: tensors by name, a row for each sample (labels, text embeddings, masks).

They are kept with the samples they belong to: whatever chooses, splits or repeats samples does the same to their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.errors import InputError, first_line, listed

# Name → [N, ...].
Conditions: TypeAlias = Mapping[str, Tensor]

# The condition that is the class label of a sample, int64 [N].
LABEL = "label"


def checked_conditions(what: str, given: object, count: int) -> dict[str, Tensor]:
    """Conditions as tensors, if there is one row for each sample.

    Args:
        what: What errors call them.
        given: A mapping of names to tensors or arrays [count, ...], of numbers or booleans.
        count: N.

    Raises:
        InputError: no mapping, a name that is no word, another number of rows, values that are no numbers, or a NaN or
            infinity among them.
    """
    if not isinstance(given, Mapping):
        raise InputError(what, expected="a mapping of names to tensors [N, ...]", got=type(given).__name__)
    return {
        _checked_name(what, name): _checked(f"{what}, '{name}'", values, count)
        for name, values in given.items()
    }


def _checked_name(what: str, name: object) -> str:
    if isinstance(name, str) and name.isidentifier():
        return name
    raise InputError(what, expected="names such as label or text", got=repr(name))


def _checked(what: str, given: Any, count: int) -> Tensor:
    values = _tensor(what, given)
    if values.ndim == 0 or len(values) != count:
        raise InputError(
            what, expected=f"{count} rows, one for each sample", got=f"shape {list(values.shape)}"
        )
    if values.is_floating_point():
        finite = values.isfinite().flatten(1).all(dim=1) if values.ndim > 1 else values.isfinite()
        if not bool(finite.all()):
            bad = int(finite.logical_not().nonzero()[0])
            raise InputError(what, expected="finite numbers", got=f"a NaN or infinity in row {bad}")
    return values


def _tensor(what: str, given: Any) -> Tensor:
    """Numbers or booleans as a tensor of a type that networks work with."""
    if isinstance(given, Tensor):
        values = given.detach()
    else:
        try:
            array = np.asarray(given)
        except ValueError as error:  # lists of different lengths
            raise InputError(what, expected="numbers or booleans", got=first_line(error)) from error
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise InputError(
                what, expected="numbers or booleans", got=f"{type(given).__name__} of {array.dtype}"
            )
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch has few operations on these
            array = array.astype(np.int64)
        values = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    if values.is_complex() or values.layout != torch.strided:
        raise InputError(
            what, expected="a plain tensor of real numbers", got=f"{values.dtype}, {values.layout}"
        )
    return values


def rows_of(conditions: Conditions, index: Tensor) -> dict[str, Tensor]:
    """The rows of some samples."""
    return {name: values[index.to(values.device)] for name, values in conditions.items()}


def placed(conditions: Conditions, like: Tensor) -> dict[str, Tensor]:
    """On the device of `like`, and floating-point ones in its dtype; whole numbers keep their type."""
    return {
        name: values.to(like.device, like.dtype) if values.is_floating_point() else values.to(like.device)
        for name, values in conditions.items()
    }


def replaced(conditions: Conditions, others: Conditions, where: Tensor) -> dict[str, Tensor]:
    """The rows of `others` where `where` [N] is true, and those of `conditions` elsewhere."""
    return {
        name: torch.where(where.reshape(-1, *(1,) * (values.ndim - 1)), others[name].to(values), values)
        for name, values in conditions.items()
    }


def repeated(conditions: Conditions, times: int) -> dict[str, Tensor]:
    """All rows, `times` times one after the other."""
    return {name: values.repeat(times, *(1,) * (values.ndim - 1)) for name, values in conditions.items()}


def shared(what: str, values: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    """One value for each of `count` samples.

    Args:
        what: What errors call them.
        values: Name → the value of one sample, a number or a tensor [...].
        count: N.

    Raises:
        InputError: as `checked_conditions`.
    """
    found = checked_conditions(what, {name: _tensor(what, value)[None] for name, value in values.items()}, 1)
    return {name: value.expand(count, *value.shape[1:]) for name, value in found.items()}


def varies(conditions: Conditions) -> bool:
    """Whether some condition differs between samples, so that it can tell the network something about them."""
    return any(len(values) > 1 and bool((values[1:] != values[:1]).any()) for values in conditions.values())


def extremes(conditions: Conditions) -> Tensor:
    """Positions of the first sample and of those with the smallest and the largest whole numbers, such as labels."""
    found = {0}
    for values in conditions.values():
        if values.ndim == 1 and not (values.is_floating_point() or values.dtype == torch.bool):
            found |= {int(values.argmin()), int(values.argmax())}
    return torch.tensor(sorted(found))


def described(conditions: Conditions) -> dict[str, Any]:
    """What a result notes of conditions, JSON-able: dtype, shape of a row, SHA-256, and the value that all samples share."""
    return {
        name: {
            "dtype": str(values.dtype).removeprefix("torch."),
            "shape": list(values.shape[1:]),
            "digest": provenance.digest(values),
        }
        | ({} if varies({name: values}) or values.ndim > 1 else {"shared": values[0].item()})
        for name, values in conditions.items()
    }


def require_same_names(what: str, expected: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse a mapping that lacks a condition of the network, or has one that it does not take.

    Raises:
        InputError: so.
    """
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected]
    if missing or extra:
        wanted = listed(expected) if expected else "none, since the network takes none"
        fix, argument = missing_remedy(missing[0]) if missing and not extra else (_EXTRA, "conditions")
        raise InputError(
            what,
            expected=wanted,
            got=listed(given) if given else "none",
            fix=fix,
            arguments={argument: None},
        )


_EXTRA = "Name what the network takes with {conditions} of its Denoiser."


def missing_remedy(name: str) -> tuple[str, str]:
    """What to do where the data lacks a condition of the network: the sentence, and the argument that it names."""
    argument = "labels" if name == LABEL else "cond"
    return f"Give them with the data: {{{argument}}}.", argument
