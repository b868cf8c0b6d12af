"""The recorder: runs a network and notes every operation in which a parameter meets the batch.

It sees each torch call (a TorchFunctionMode), not module classes, so layers that call `F.linear` themselves are covered too.
Parameters are swapped for detached values, so autograd computes input gradients only; what tensors are computed from
parameters alone is followed in a graph of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import ntkdiag.kernel.streaming.rules  # noqa: F401  (registers the rules)
from ntkdiag.kernel.guards import refuse_mixing
from ntkdiag.kernel.streaming.recording.derived import (
    DerivedParameter,
    derived_parameter,
    overwritten_parameter,
)
from ntkdiag.kernel.streaming.recording.torch_operations import (
    COPIES,
    DECOMPOSITIONS,
    EXPANSIONS,
    IN_PLACE,
    SCATTERS,
    SHAPE_FROM_ALL,
    SHAPE_FROM_OTHERS,
    selects_rows_by_data,
    writes_into_first,
)
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.general import RULES, Call, ParameterUse

Arguments = tuple[Any, ...]
Named = dict[str, Any]


@dataclass(frozen=True)
class RecordedOperation:
    """An operation in which parameters met the batch.

    Attributes:
        family: Of its rule.
        uses: Each source among its arguments, with its use.
        operands: The other tensors it was given.
        output: Its result.
    """

    family: str
    uses: list[tuple[DerivedParameter, ParameterUse]]
    operands: list[Tensor]
    output: Tensor

    @property
    def names(self) -> list[str]:
        """Parameters that take part, sorted."""
        return sorted({name for source, _ in self.uses for name in source.leaves})


class _TensorSet:
    """Tensors that are marked, for as long as they live."""

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


class Recorder(TorchFunctionMode):
    """Interception for the length of one forward.

    Args:
        root: The network.
        sources: id of a parameter, or of its leaf → its source, for parameters the kernel is taken over.
        others: id of any other parameter that requires a gradient → its detached value.
        batch: The network's inputs.
        on_operation: Told of every operation.

    Attributes:
        unsupported: Parameter name → why no rule served it.
    """

    def __init__(
        self,
        root: nn.Module,
        sources: dict[int, DerivedParameter],
        others: dict[int, Tensor],
        batch: Iterable[Tensor],
        on_operation: Callable[[RecordedOperation], None],
    ) -> None:
        super().__init__()
        self._root = root
        self._sources = dict(sources)
        self._others = others
        self._on_meeting = on_operation
        self._batch = _TensorSet()
        self._strayed = (
            _TensorSet()
        )  # hold rows that the data chose: which belong to which sample cannot be told
        self.unsupported: dict[str, str] = {}
        for tensor in batch:
            self._mark(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Arguments = (), kwargs: Named | None = None
    ) -> Any:
        kwargs = kwargs or {}
        refuse_mixing(self._root, func, args, kwargs)
        giving = _giving(func, args, kwargs)
        sources = [self._sources[id(t)] for t in giving if id(t) in self._sources]
        held = [id(t) not in self._sources and self._is_batch(t) for t in giving]
        batched = any(held)
        strayed = batched and self._strays(func, giving, held)
        if self._others:
            args, kwargs = _replace((args, kwargs), lambda t: self._others.get(id(t), t))
        if not sources:
            return self._plain(func, args, kwargs, batched, strayed)
        if torch._C._are_functorch_transforms_active():  # its wrapped tensors cannot be followed
            self._refuse(sources, f"{_name(func)}: inside a torch.func transform")
            return self._plain(func, *self._detached(args, kwargs), batched, strayed)
        if not batched:
            return self._derive(func, args, kwargs, sources)
        if not torch.is_grad_enabled():  # no gradient flows here, as in training
            return self._plain(func, *self._detached(args, kwargs), True, strayed)
        try:
            if strayed:
                raise Unsupported("rows that the data chose")
            return self._meet(func, args, kwargs, sources)
        except Unsupported as reason:
            self._refuse(sources, f"{_name(func)}: {reason}")
            return self._plain(func, *self._detached(args, kwargs), True, strayed)

    def _strays(self, func: Callable[..., Any], giving: list[Tensor], held: list[bool]) -> bool:
        """Whether the rows of the result are no longer where samples are."""
        followed = giving[:1] if func in SCATTERS else giving
        return any(tensor in self._strayed for tensor in followed) or selects_rows_by_data(func, held)

    def _plain(
        self, func: Callable[..., Any], args: Arguments, kwargs: Named, batched: bool, strayed: bool = False
    ) -> Any:
        out = func(*args, **kwargs)
        if batched:
            for tensor in _tensors((out, args[0]) if writes_into_first(func) else (out,)):
                self._mark(tensor)
                if strayed:
                    self._strayed.add(tensor)
        return out

    def _derive(
        self, func: Callable[..., Any], args: Arguments, kwargs: Named, parents: list[DerivedParameter]
    ) -> Any:
        """Parameters and constants alone: the result is a source, if a gradient flows through it."""
        args, kwargs = _replace(
            (args, kwargs), lambda t: self._sources[id(t)].tensor if id(t) in self._sources else t
        )
        out = func(*args, **kwargs)
        if writes_into_first(func):
            self._rewritten(args[0], parents)
            return out
        for tensor in _tensors((out,)):
            if tensor.requires_grad and tensor.grad_fn is not None:
                copied, spread = func in COPIES, func in EXPANSIONS
                self._sources[id(tensor)] = derived_parameter(tensor, parents, copied=copied, spread=spread)
        return out

    def _rewritten(self, target: Tensor, parents: list[DerivedParameter]) -> None:
        """Something was written into a derived tensor: what shares its memory no longer shows a parameter as it is."""
        if not target.requires_grad or target.is_leaf:
            return
        memory = target.untyped_storage().data_ptr()
        for key, source in list(self._sources.items()):
            if not source.tensor.is_leaf and source.tensor.untyped_storage().data_ptr() == memory:
                self._sources[key] = overwritten_parameter(source.tensor, [source, *parents])
        if id(target) not in self._sources:  # a constant until now
            self._sources[id(target)] = overwritten_parameter(target, parents)

    def _meet(
        self, func: Callable[..., Any], args: Arguments, kwargs: Named, parents: list[DerivedParameter]
    ) -> Any:
        """A parameter meets the batch: run with detached values, tell of the uses."""
        if func in IN_PLACE:
            return self._meet_in_place(func, args, kwargs)
        if func in DECOMPOSITIONS:
            with self:
                return DECOMPOSITIONS[func](*args, **kwargs)
        if func not in RULES and not self._gives_gradient(func, args, kwargs):
            return self._plain(func, *self._detached(args, kwargs), batched=True)
        family, uses = self._uses(func, args, kwargs, parents)
        values = self._detached(args, kwargs)
        out = func(*values[0], **values[1])
        if out._is_view():  # of what the operation made inside; writes into a view slip past a hook on it
            out = torch.ops.aten._unsafe_view.default(out, out.shape)
        self._mark(out)
        operands = [t for t in _tensors((*args, *kwargs.values())) if id(t) not in self._sources]
        self._on_meeting(RecordedOperation(family, uses, operands, out))
        return out

    def _meet_in_place(self, func: Callable[..., Any], args: Arguments, kwargs: Named) -> Any:
        """The operation happens beside the tensor, whose values are then replaced: a hook on the result of writing into
        a view would not see the gradient of what is behind it."""
        if id(args[0]) in self._sources:
            raise Unsupported("a parameter that the batch is written into")
        with self:
            out = IN_PLACE[func](args[0].clone(), *args[1:], **kwargs)
        return self._plain(Tensor.copy_, (args[0], out), {}, batched=True)

    def _uses(
        self, func: Callable[..., Any], args: Arguments, kwargs: Named, parents: list[DerivedParameter]
    ) -> tuple[str, list[tuple[DerivedParameter, ParameterUse]]]:
        if func not in RULES:
            raise Unsupported("no rule")
        if any(t.is_complex() for t in _tensors((*args, *kwargs.values()))):
            raise Unsupported("complex numbers")
        family, rule = RULES[func]
        uses = rule(Call(func, args, kwargs, self._is_parameter))
        return family, [(self._sources[id(use.tensor)], use) for use in uses]

    def _gives_gradient(self, func: Callable[..., Any], args: Arguments, kwargs: Named) -> bool:
        """Whether an operation without a rule passes a gradient to its sources at all: a comparison does not."""
        if writes_into_first(func):
            return True

        def alone(t: Tensor) -> Tensor:
            return self._sources[id(t)].tensor if id(t) in self._sources else t.detach()

        args, kwargs = _replace((args, kwargs), alone)
        return any(t.requires_grad for t in _tensors((func(*args, **kwargs),)))

    def _refuse(self, sources: Iterable[DerivedParameter], reason: str) -> None:
        """The parameters behind `sources` are beyond this engine."""
        for source in sources:
            for name in source.leaves:
                self.unsupported.setdefault(name, reason)

    def _detached(self, args: Arguments, kwargs: Named) -> tuple[Arguments, Named]:
        replaced: tuple[Arguments, Named] = _replace(
            (args, kwargs), lambda t: t.detach() if id(t) in self._sources else t
        )
        return replaced

    def _is_parameter(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._sources

    def _is_batch(self, tensor: Tensor) -> bool:
        """Marked, or with a graph, which constants have not: handed over by something that torch's modes do not see."""
        return tensor in self._batch or tensor.grad_fn is not None

    def _mark(self, tensor: Tensor) -> None:
        self._batch.add(tensor)
        self._sources.pop(id(tensor), None)  # a source that the batch was written into is one no longer


def _giving(func: Callable[..., Any], args: Arguments, kwargs: Named) -> list[Tensor]:
    """Tensors whose values the result depends on, not only their shape or dtype."""
    if func in SHAPE_FROM_ALL:
        return []
    return list(_tensors(args[:1] if func in SHAPE_FROM_OTHERS else (*args, *kwargs.values())))


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", str(func))


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
