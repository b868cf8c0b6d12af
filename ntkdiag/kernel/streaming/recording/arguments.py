"""Tensors among the arguments of a torch call, which may be nested in tuples, lists and dicts."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.recording.torch_operations import SHAPE_FROM_ALL, SHAPE_FROM_OTHERS


class TensorSet:
    """A set of tensors, compared by identity and not kept alive."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[Tensor]] = {}

    def __contains__(self, tensor: Tensor) -> bool:
        reference = self._known.get(id(tensor))
        return reference is not None and reference() is tensor

    def add(self, tensor: Tensor) -> None:
        key, known = id(tensor), self._known
        if tensor not in self:
            known[key] = weakref.ref(
                tensor, lambda dead: known.pop(key, None) if known.get(key) is dead else None
            )


def value_arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Tensors whose values the result depends on, not only their shape or dtype."""
    if func in SHAPE_FROM_ALL:
        return []
    return list(tensors_in(args[:1] if func in SHAPE_FROM_OTHERS else (*args, *kwargs.values())))


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in a nest of tuples, lists and dicts."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


def replace_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tuples, lists and dicts with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replace_tensors(item, change) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(replace_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {key: replace_tensors(item, change) for key, item in value.items()}
    return value
