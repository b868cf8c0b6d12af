"""The recorder: runs a network and notes every operation that takes both parameters and data of the batch.

It is a TorchFunctionMode and sees each torch call, not module classes, so networks that call `F.linear` themselves are
covered too. Parameters are replaced by detached values, so autograd computes input gradients only; tensors that are computed
from parameters alone are followed in autograd graphs of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import ntkdiag.kernel.streaming.rules  # noqa: F401  (registers the rules)
from ntkdiag.kernel.guards import refuse_mixing
from ntkdiag.kernel.streaming.recording.arguments import (
    TensorSet,
    replace_tensors,
    tensors_in,
    value_arguments,
)
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
    selects_rows_by_data,
    writes_into_first,
)
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.general import RULES, Call, ParameterUse

Arguments = tuple[Any, ...]
Named = dict[str, Any]


@dataclass(frozen=True)
class RecordedOperation:
    """An operation that takes both parameters and data of the batch.

    Attributes:
        family: The name of its rule.
        uses: Each derived parameter among its arguments, with its use.
        operands: Its other tensor arguments.
        output: Its result.
    """

    family: str
    uses: list[tuple[DerivedParameter, ParameterUse]]
    operands: list[Tensor]
    output: Tensor

    @property
    def names(self) -> list[str]:
        """Parameters behind its uses, sorted."""
        return sorted({name for parameter, _ in self.uses for name in parameter.leaves})


class Recorder(TorchFunctionMode):
    """Records one forward.

    Args:
        root: The network.
        parameters: id of a parameter or of its leaf → the derived parameter, for parameters the kernel is over.
        others: id of any other parameter that requires a gradient → its detached value.
        batch: The network's inputs.
        on_operation: Called with every recorded operation.

    Attributes:
        unsupported: Parameter name → why no rule served it.
    """

    def __init__(
        self,
        root: nn.Module,
        parameters: dict[int, DerivedParameter],
        others: dict[int, Tensor],
        batch: Iterable[Tensor],
        on_operation: Callable[[RecordedOperation], None],
    ) -> None:
        super().__init__()
        self._root = root
        self._derived = dict(parameters)
        self._others = others
        self._on_operation = on_operation
        self._batch = TensorSet()
        self._selected = TensorSet()  # rows selected by data: the samples they belong to cannot be known
        self.unsupported: dict[str, str] = {}
        for tensor in batch:
            self._add_to_batch(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Arguments = (), kwargs: Named | None = None
    ) -> Any:
        kwargs = kwargs or {}
        refuse_mixing(self._root, func, args, kwargs)
        inputs = value_arguments(func, args, kwargs)
        parents = [self._derived[id(t)] for t in inputs if id(t) in self._derived]
        from_batch = [id(t) not in self._derived and self._is_batch(t) for t in inputs]
        batched = any(from_batch)
        selected = batched and self._is_selected(func, inputs, from_batch)
        if self._others:
            args, kwargs = replace_tensors((args, kwargs), lambda t: self._others.get(id(t), t))
        if not parents:
            return self._run(func, args, kwargs, batched, selected)
        if torch._C._are_functorch_transforms_active():  # its wrapped tensors cannot be followed
            self._refuse(parents, f"{_name(func)}: inside a torch.func transform")
            return self._run(func, *self._detached(args, kwargs), batched, selected)
        if not batched:
            return self._derive(func, args, kwargs, parents)
        if not torch.is_grad_enabled():  # no gradient flows here, as in training
            return self._run(func, *self._detached(args, kwargs), True, selected)
        try:
            if selected:
                raise Unsupported("rows that the data chose")
            return self._record(func, args, kwargs, parents)
        except Unsupported as reason:
            self._refuse(parents, f"{_name(func)}: {reason}")
            return self._run(func, *self._detached(args, kwargs), True, selected)

    def _is_selected(self, func: Callable[..., Any], inputs: list[Tensor], from_batch: list[bool]) -> bool:
        """Whether data decides which rows the result has, so that samples are no longer at fixed places."""
        followed = inputs[:1] if func in SCATTERS else inputs
        return any(tensor in self._selected for tensor in followed) or selects_rows_by_data(func, from_batch)

    def _run(
        self, func: Callable[..., Any], args: Arguments, kwargs: Named, batched: bool, selected: bool = False
    ) -> Any:
        """Run an operation without recording it."""
        out = func(*args, **kwargs)
        if batched:
            for tensor in tensors_in((out, args[0]) if writes_into_first(func) else (out,)):
                self._add_to_batch(tensor)
                if selected:
                    self._selected.add(tensor)
        return out

    def _derive(
        self, func: Callable[..., Any], args: Arguments, kwargs: Named, parents: list[DerivedParameter]
    ) -> Any:
        """Run an operation on parameters and constants alone; its result is a derived parameter if a gradient passes it."""
        args, kwargs = replace_tensors(
            (args, kwargs), lambda t: self._derived[id(t)].tensor if id(t) in self._derived else t
        )
        out = func(*args, **kwargs)
        if writes_into_first(func):
            self._overwrite(args[0], parents)
            return out
        for tensor in tensors_in((out,)):
            if tensor.requires_grad and tensor.grad_fn is not None:
                copied, expanded = func in COPIES, func in EXPANSIONS
                self._derived[id(tensor)] = derived_parameter(
                    tensor, parents, copied=copied, expanded=expanded
                )
        return out

    def _overwrite(self, target: Tensor, parents: list[DerivedParameter]) -> None:
        """Note a write into a derived tensor: tensors that share its memory no longer show a parameter unchanged."""
        if not target.requires_grad or target.is_leaf:
            return
        memory = target.untyped_storage().data_ptr()
        for key, old in list(self._derived.items()):
            if not old.tensor.is_leaf and old.tensor.untyped_storage().data_ptr() == memory:
                self._derived[key] = overwritten_parameter(old.tensor, [old, *parents])
        if id(target) not in self._derived:  # a constant until now
            self._derived[id(target)] = overwritten_parameter(target, parents)

    def _record(
        self, func: Callable[..., Any], args: Arguments, kwargs: Named, parents: list[DerivedParameter]
    ) -> Any:
        """Run an operation on parameters and the batch with detached parameters, and report its uses."""
        if func in IN_PLACE:
            return self._record_in_place(func, args, kwargs)
        if func in DECOMPOSITIONS:
            with self:
                return DECOMPOSITIONS[func](*args, **kwargs)
        if func not in RULES and not self._gives_gradient(func, args, kwargs):
            return self._run(func, *self._detached(args, kwargs), batched=True)
        family, uses = self._uses(func, args, kwargs, parents)
        values = self._detached(args, kwargs)
        out = func(*values[0], **values[1])
        if (
            out._is_view()
        ):  # of a tensor that the operation made; a write into a view would bypass the hook on it
            out = torch.ops.aten._unsafe_view.default(out, out.shape)
        self._add_to_batch(out)
        operands = [t for t in tensors_in((*args, *kwargs.values())) if id(t) not in self._derived]
        self._on_operation(RecordedOperation(family, uses, operands, out))
        return out

    def _record_in_place(self, func: Callable[..., Any], args: Arguments, kwargs: Named) -> Any:
        """Record the same operation out of place, then copy its result into the tensor: a hook on the result of writing
        into a view would not see the gradient of the tensor behind it."""
        if id(args[0]) in self._derived:
            raise Unsupported("a parameter that the batch is written into")
        with self:
            out = IN_PLACE[func](args[0].clone(), *args[1:], **kwargs)
        return self._run(Tensor.copy_, (args[0], out), {}, batched=True)

    def _uses(
        self, func: Callable[..., Any], args: Arguments, kwargs: Named, parents: list[DerivedParameter]
    ) -> tuple[str, list[tuple[DerivedParameter, ParameterUse]]]:
        if func not in RULES:
            raise Unsupported("no rule")
        if any(t.is_complex() for t in tensors_in((*args, *kwargs.values()))):
            raise Unsupported("complex numbers")
        family, rule = RULES[func]
        uses = rule(Call(func, args, kwargs, self._is_parameter))
        if len(uses) < len(parents):
            raise Unsupported("an argument that its rule does not expect to be a parameter")
        return family, [(self._derived[id(use.tensor)], use) for use in uses]

    def _gives_gradient(self, func: Callable[..., Any], args: Arguments, kwargs: Named) -> bool:
        """Whether an operation without a rule passes a gradient to its parameters at all: a comparison does not."""
        if writes_into_first(func):
            return True

        def alone(t: Tensor) -> Tensor:
            return self._derived[id(t)].tensor if id(t) in self._derived else t.detach()

        args, kwargs = replace_tensors((args, kwargs), alone)
        return any(t.requires_grad for t in tensors_in((func(*args, **kwargs),)))

    def _refuse(self, parents: Iterable[DerivedParameter], reason: str) -> None:
        """Leave the parameters behind these derived ones to the exact engine."""
        for parent in parents:
            for name in parent.leaves:
                self.unsupported.setdefault(name, reason)

    def _detached(self, args: Arguments, kwargs: Named) -> tuple[Arguments, Named]:
        replaced: tuple[Arguments, Named] = replace_tensors(
            (args, kwargs), lambda t: t.detach() if id(t) in self._derived else t
        )
        return replaced

    def _is_parameter(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._derived

    def _is_batch(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the inputs.

        An autograd graph is a sign of it too: constants have none, and an operation that no TorchFunctionMode sees (a custom
        autograd function) leaves one.
        """
        return tensor in self._batch or tensor.grad_fn is not None

    def _add_to_batch(self, tensor: Tensor) -> None:
        self._batch.add(tensor)
        self._derived.pop(id(tensor), None)  # the batch may have been written into a derived parameter


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", str(func))
