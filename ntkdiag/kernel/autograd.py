"""Plain autograd on the user's own module: the truth that every other engine is compared with.

Nothing is replaced, vectorised or recorded. Gradient checkpointing and autograd Functions that run part of the network again
in their backward work as they do in training, because the module still holds its own parameters while they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ntkdiag.errors import MeasurementError, NtkdiagError, first_line, listed
from ntkdiag.kernel.directions import checked_output
from ntkdiag.kernel.eager import uncompiled
from ntkdiag.kernel.row_grams import Rows

Inputs = tuple[Tensor, ...]
# (name of a parameter, its gradient) → what is kept of the gradient, which depends on it linearly
Keeping = Callable[[str, Tensor], Tensor]
# The output of m samples [m, *out] → the vectors that multiply their Jacobians, [m, *out].
Direction = Callable[[Tensor], Tensor]


class _Way(NamedTuple):
    """How a gradient is asked for.

    Attributes:
        from_inputs: The inputs require a gradient.
        accumulate: By `.backward()`; else by `torch.autograd.grad`.
    """

    from_inputs: bool
    accumulate: bool


class _BackwardError(RuntimeError):
    """A backward failed; another way may succeed."""


# The first that works is taken.
_WAYS: tuple[_Way, ...] = (_Way(True, False), _Way(True, True), _Way(False, False), _Way(False, True))


@contextmanager
def gradients_set_aside(module: nn.Module) -> Iterator[None]:
    """Every parameter's `.grad` is None in the block, and has its value again afterwards.

    A nested `.backward()` inside the network accumulates gradients there. Hooks that are called after that (optimizers that
    step during the backward use them) are off in the block. Flags and graphs of parameters and buffers are put back too.
    """
    leaves = [_Leaf(parameter) for parameter in module.parameters()]
    buffers = [buffer for buffer in module.buffers() if not buffer.requires_grad]
    try:
        yield
    finally:
        for leaf in leaves:
            leaf.restore()
        for buffer in buffers:
            if buffer.requires_grad:  # an activation was written into it
                buffer.detach_()


class _Leaf:
    """A parameter's gradient, flag and hooks."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self._parameter, self._grad, self._requires_grad = parameter, parameter.grad, parameter.requires_grad
        hooks: dict[int, object] | None = getattr(parameter, "_post_accumulate_grad_hooks", None)
        self._hooks = {} if hooks is None else hooks
        self._kept_hooks = dict(self._hooks)
        parameter.grad = None
        self._hooks.clear()

    def restore(self) -> None:
        if self._parameter.requires_grad != self._requires_grad:
            self._parameter.requires_grad_(self._requires_grad)
        self._parameter.grad = self._grad
        self._hooks.update(self._kept_hooks)


@contextmanager
def _without_synchronisation(module: nn.Module) -> Iterator[None]:
    """A backward through DistributedDataParallel sends no gradients to other processes."""
    parts = [part for part in module.modules() if isinstance(part, DistributedDataParallel)]
    before = [part.require_backward_grad_sync for part in parts]
    for part in parts:
        part.require_backward_grad_sync = False
    try:
        yield
    finally:
        for part, synchronised in zip(parts, before, strict=True):
            part.require_backward_grad_sync = synchronised


class PlainAutograd:
    """Gradients with respect to chosen parameters; use it inside its own `with` block.

    `torch.autograd.grad` is used where the network allows it. Reentrant checkpointing, for one, does not: there it is
    `.backward()`. Either way a gradient includes what a nested `.backward()` inside the network accumulates in `.grad`.
    The inputs require a gradient where the network allows it, because a reentrant checkpoint (and Functions like it) passes
    none to its parameters otherwise.

    Args:
        module: Called as module(*inputs), in the mode it is in.
        parameters: Name → parameter.
        keep: What is kept of a gradient, as soon as it is there: all of them never exist at the same time. None keeps them.

    Example:
        with PlainAutograd(module, parameters) as plain:
            output, gradients = plain.pull((x[:1],), lambda output: torch.ones_like(output))
    """

    def __init__(
        self, module: nn.Module, parameters: Mapping[str, nn.Parameter], keep: Keeping | None = None
    ) -> None:
        self._module = module
        self._parameters = dict(parameters)
        self._keep = keep
        self._kept: dict[str, Tensor] = {}
        self._ways = _WAYS if keep is None else tuple(way for way in _WAYS if way.accumulate)
        self._restore = ExitStack()

    def __enter__(self) -> PlainAutograd:
        self._restore = ExitStack()
        with ExitStack() as entered:
            entered.enter_context(gradients_set_aside(self._module))
            entered.enter_context(_without_synchronisation(self._module))
            for parameter in self._parameters.values():
                parameter.requires_grad_(True)
            if self._keep is not None:
                entered.enter_context(self._keeping(self._keep))
            self._restore = entered.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._restore.close()

    def pull(self, batch: Inputs, direction: Direction) -> tuple[Tensor, dict[str, Tensor | None]]:
        """Jᵀ v of one sample, or Σ_i J_iᵀ v_i of several.

        Args:
            batch: Tensors [m, ...].
            direction: See `Direction`.

        Returns:
            The output [m, *out], and for each parameter its gradient, or what is kept of it; None where autograd passes none
            to it.

        Raises:
            MeasurementError: the backward fails by `.grad` and by `.backward()`.
        """
        failures: list[RuntimeError] = []
        for way in self._ways:
            try:
                found = self._by(way, batch, direction)
            except (torch.OutOfMemoryError, NtkdiagError):
                raise
            except RuntimeError as error:
                failures.append(error)
                self._forget()
                continue
            self._ways = self._ways[self._ways.index(way) :]  # the others fail for every sample
            return found
        failed = next((error for error in failures if isinstance(error, _BackwardError)), None)
        if failed is None:  # the network's own error, in its forward
            raise failures[0]
        raise MeasurementError(str(failed)) from failed.__cause__

    def _by(self, way: _Way, batch: Inputs, direction: Direction) -> tuple[Tensor, dict[str, Tensor | None]]:
        copies = [tensor.detach().clone() for tensor in batch]  # a network may write into its inputs
        leaves = [copy.requires_grad_() for copy in copies if way.from_inputs and copy.is_floating_point()]
        with torch.enable_grad(), uncompiled():
            output = checked_output(self._module(*(copy.clone() for copy in copies)), len(batch[0]))
        vector = direction(output.detach()).to(output.dtype)
        if not output.requires_grad:
            return output.detach(), dict.fromkeys(self._parameters)
        try:
            with uncompiled(), torch.autocast(output.device.type, enabled=False):
                found = (
                    self._backward(output, vector) if way.accumulate else self._grad(output, vector, leaves)
                )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            names, reason = listed(self._parameters), first_line(error)
            raise _BackwardError(f"network: expected a backward to {names}; got {reason}") from error
        return output.detach(), found

    def _grad(self, output: Tensor, vector: Tensor, inputs: list[Tensor]) -> dict[str, Tensor | None]:
        """By `torch.autograd.grad`; it visits only nodes on the way to what it is asked for, so that a Function with a
        nested `.backward()` runs only if its own inputs are asked for."""
        chosen = list(self._parameters.values())
        known = {id(parameter) for parameter in chosen}
        others = [p for p in self._module.parameters() if p.requires_grad and id(p) not in known]
        found = torch.autograd.grad(output, [*chosen, *others, *inputs], vector, allow_unused=True)
        nested = self._forget()
        return {
            name: _dense(gradient) if name not in nested else _sum(_dense(gradient), nested[name])
            for name, gradient in zip(self._parameters, found, strict=False)
        }

    def _backward(self, output: Tensor, vector: Tensor) -> dict[str, Tensor | None]:
        output.backward(vector)
        nested = self._forget()
        return {name: nested.get(name) for name in self._parameters}

    @contextmanager
    def _keeping(self, keep: Keeping) -> Iterator[None]:
        """No parameter has a gradient for longer than it takes to keep something of it."""
        names = {id(parameter): name for name, parameter in self._parameters.items()}

        def take(parameter: Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            name = names.get(id(parameter))
            if name is not None and gradient is not None:
                part = keep(name, gradient.to_dense())
                self._kept[name] = self._kept[name] + part if name in self._kept else part

        leaves = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        handles = [leaf.register_post_accumulate_grad_hook(take) for leaf in leaves]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _forget(self) -> dict[str, Tensor]:
        """Gradients that have accumulated in `.grad`, which is None afterwards, or what was kept of them."""
        if self._keep is not None:
            kept, self._kept = self._kept, {}
            return kept
        found = {name: p.grad.to_dense() for name, p in self._parameters.items() if p.grad is not None}
        for parameter in self._module.parameters():
            parameter.grad = None
        return found


def row_gradients(
    module: nn.Module, parameters: dict[str, nn.Parameter], inputs: Inputs, cotangents: Tensor
) -> Rows:
    """J_iᵀ v_i by plain autograd for every sample i.

    Args:
        module: Called as module(*inputs).
        parameters: Name → parameter to differentiate by.
        inputs: Tensors [n, ...].
        cotangents: v, [n, *out].

    Returns:
        Name → [n, numel], zero where the output does not depend on the parameter.
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    with PlainAutograd(module, parameters) as plain:
        for sample, vector in zip(each_sample(inputs), cotangents.split(1), strict=True):
            _, found = plain.pull(sample, lambda output, vector=vector: vector)  # type: ignore[misc]
            for name, gradient in found.items():
                filled = torch.zeros_like(parameters[name]) if gradient is None else gradient
                rows[name].append(filled.detach().flatten())
    return {name: torch.stack(each) for name, each in rows.items()}


def each_sample(inputs: Inputs) -> Iterator[Inputs]:
    """Batches of one sample each."""
    return zip(*(tensor.split(1) for tensor in inputs), strict=True)


def _dense(gradient: Tensor | None) -> Tensor | None:
    """Embeddings may give sparse gradients."""
    return None if gradient is None else gradient.to_dense()


def _sum(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b
