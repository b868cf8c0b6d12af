"""The recorder: runs a network and notes every operation in which a parameter meets the batch.

It sees each torch call (a TorchFunctionMode), not module classes, so layers that call `F.linear` themselves are covered too.
Parameters are swapped for detached values, so autograd computes input gradients only; what tensors are computed from
parameters alone is followed in a graph of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import ntkdiag.kernel.streaming.rules  # noqa: F401  (registers the rules)
from ntkdiag.kernel.streaming.attention import REWRITES
from ntkdiag.kernel.streaming.registry import RULES, Call, Unsupported, Use
from ntkdiag.kernel.streaming.sources import Source, derived_source

CASTS = {Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.type, Tensor.type_as,
         Tensor.clone, torch.clone, Tensor.contiguous}  # fmt: skip
REPEATS = {Tensor.repeat, torch.tile, Tensor.tile}

# (uses, output): called once for every operation in which parameters met the batch
OnUse = Callable[[str, list[tuple[Source, Use]], Tensor], None]


class Recorder(TorchFunctionMode):
    """Interception for the length of one forward.

    Args:
        parameters: id of a parameter → its source, for parameters the kernel is taken over.
        frozen: id of any other parameter that requires a gradient → its detached value.
        batch: The network's inputs.
        on_use: Told of every use.

    Attributes:
        unsupported: Parameter name → why no rule served it.
    """

    def __init__(
        self, parameters: dict[int, Source], frozen: dict[int, Tensor], batch: Iterable[Tensor], on_use: OnUse
    ) -> None:
        super().__init__()
        self._sources = dict(parameters)
        self._frozen = frozen
        self._on_use = on_use
        self._batch: dict[int, weakref.ref[Tensor]] = {}
        self.unsupported: dict[str, str] = {}
        for tensor in batch:
            self._mark(tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((*args, *kwargs.values())))
        sources = [self._sources[id(t)] for t in tensors if id(t) in self._sources]
        batched = any(self._is_batch(t) for t in tensors)
        if self._frozen:
            args, kwargs = _replace((args, kwargs), lambda t: self._frozen.get(id(t), t))
        if not sources:
            return self._plain(func, args, kwargs, batched)
        if not batched:
            return self._derive(func, args, kwargs, sources)
        if func in REWRITES:
            with self:
                return REWRITES[func](*args, **kwargs)
        return self._meet(func, args, kwargs, sources)

    def _plain(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], batched: bool) -> Any:
        out = func(*args, **kwargs)
        if batched:
            self._mark_all(out)
            if _writes_into_first(func) and args:
                self._mark_all(args[0])
        return out

    def _derive(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], parents: list[Source]
    ) -> Any:
        """Parameters and constants alone: the result is a source, if a gradient flows through it."""
        args, kwargs = _replace(
            (args, kwargs), lambda t: self._sources[id(t)].tensor if id(t) in self._sources else t
        )
        out = _repeat(func, args, kwargs) if func in REPEATS else func(*args, **kwargs)
        cast = func in CASTS
        for tensor in _tensors((out,)):
            if tensor.requires_grad and tensor.grad_fn is not None:
                self._sources[id(tensor)] = derived_source(tensor, parents, cast)
        if _writes_into_first(func) and isinstance(args[0], Tensor) and args[0].requires_grad:
            self._sources[id(args[0])] = derived_source(args[0], parents, False)
        return out

    def _meet(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], parents: list[Source]
    ) -> Any:
        """A parameter meets the batch: run with detached values, tell of the uses."""
        values = self._detached(args, kwargs)
        if not torch.is_grad_enabled():  # no gradient flows here, as in training
            return self._plain(func, *values, batched=True)
        family, uses = self._uses(func, args, kwargs, parents)
        out = func(*values[0], **values[1])
        self._mark_all(out)
        if _writes_into_first(func):
            self._mark_all(args[0])
        if uses:
            self._on_use(family, uses, out)
        return out

    def _uses(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], parents: list[Source]
    ) -> tuple[str, list[tuple[Source, Use]]]:
        family, rule = RULES.get(func, ("", None))
        name = getattr(func, "__name__", str(func))
        try:
            if rule is None:
                raise Unsupported(f"no rule for {name}")
            uses = rule(Call(func, args, kwargs, self._is_source))
            return family, [(self._sources[id(use.source)], use) for use in uses]
        except Unsupported as reason:
            self.refuse(parents, f"{name}: {reason}" if rule else str(reason))
            return family, []

    def refuse(self, sources: Iterable[Source], reason: str) -> None:
        """The parameters behind `sources` are beyond this engine."""
        for source in sources:
            for name in source.leaves:
                self.unsupported.setdefault(name, reason)

    def _detached(self, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return _replace(
            (args, kwargs), lambda t: self._sources[id(t)].tensor.detach() if id(t) in self._sources else t
        )

    def _is_source(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._sources

    def _is_batch(self, tensor: Tensor) -> bool:
        reference = self._batch.get(id(tensor))
        return reference is not None and reference() is tensor

    def _mark_all(self, value: Any) -> None:
        for tensor in _tensors((value,)):
            self._mark(tensor)

    def _mark(self, tensor: Tensor) -> None:
        key, table = id(tensor), self._batch
        if not self._is_batch(tensor):
            table[key] = weakref.ref(
                tensor, lambda dead: table.pop(key, None) if table.get(key) is dead else None
            )
        self._sources.pop(key, None)  # a source that the batch was written into is one no longer


def _repeat(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Repeats of dimensions of size one are expansions, whose rows can be told to be one."""
    tensor, counts = args[0], args[1:]
    if len(counts) == 1 and isinstance(counts[0], (list, tuple, torch.Size)):
        counts = tuple(counts[0])
    whole = not kwargs and counts and all(isinstance(c, int) for c in counts) and len(counts) >= tensor.ndim
    if whole:
        sizes = (*(1,) * (len(counts) - tensor.ndim), *tensor.shape)
        if all(size == 1 or count == 1 for size, count in zip(sizes, counts, strict=True)):
            return tensor.expand(*(size * count for size, count in zip(sizes, counts, strict=True)))
    return func(*args, **kwargs)


def _writes_into_first(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    return (
        name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE_DUNDERS
    )


_IN_PLACE_DUNDERS = {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imatmul__"}


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _replace(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tuples, lists and dicts with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_replace(item, change) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_replace(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _replace(item, change) for key, item in value.items()}
    return value
