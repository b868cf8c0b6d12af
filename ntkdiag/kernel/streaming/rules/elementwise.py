"""Elementwise operations with broadcasting: sums, products, parametric activations, and anything else of that kind.

The derivative by the broadcast parameter comes from autograd on that one operation, so one rule serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional

from ntkdiag.kernel.streaming.contraction.broadcasting import reduce_to
from ntkdiag.kernel.streaming.contraction.forms import Dense
from ntkdiag.kernel.streaming.layouts.layout import Layout
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.registry import Call, Saved, Use, rule

SUMS: list[Callable[..., Any]] = [torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__]

ELEMENTWISE: list[Callable[..., Any]] = [
    *SUMS,
    torch.sub, torch.mul, torch.div, torch.true_divide, torch.multiply, torch.divide, torch.subtract, torch.rsub,
    torch.addcmul, torch.addcdiv, torch.lerp, torch.where, torch.pow, torch.float_power, torch.maximum, torch.minimum,
    torch.fmax, torch.fmin, torch.clamp, torch.clamp_min, torch.clamp_max, torch.clip, torch.atan2, torch.hypot,
    torch.logaddexp, torch.xlogy, torch.copysign,
    Tensor.sub, Tensor.mul, Tensor.div, Tensor.true_divide, Tensor.multiply, Tensor.divide, Tensor.subtract,
    Tensor.addcmul, Tensor.addcdiv, Tensor.lerp, Tensor.where, Tensor.pow, Tensor.float_power, Tensor.maximum,
    Tensor.minimum, Tensor.clamp, Tensor.clamp_min, Tensor.clamp_max, Tensor.clip, Tensor.atan2, Tensor.logaddexp,
    Tensor.__sub__, Tensor.__rsub__, Tensor.__mul__, Tensor.__rmul__, Tensor.__truediv__, Tensor.__rtruediv__,
    Tensor.__pow__, Tensor.__rpow__,
]  # fmt: skip


@rule("elementwise", ELEMENTWISE)
def elementwise(call: Call) -> list[Use]:
    """y = f(x, p, ...) elementwise; the gradient by p is reduced over the dimensions p was broadcast along."""
    if "out" in call.kwargs:
        raise Unsupported("an out= argument")
    if call.function in SUMS and not call.kwargs:
        return [_addend(value) for value in call.args if call.is_source(value)]
    return _beside(call)


def _addend(source: Tensor) -> Use:
    return Use(source, lambda grad, layout: reduce_to(grad, source, layout))


def _beside(call: Call) -> list[Use]:
    """The operation once more on its own, as a function of its sources: autograd keeps what their derivatives need."""
    arguments: dict[int | str, Any] = dict(enumerate(call.args))
    arguments.update(call.kwargs)
    tensors = [value for value in arguments.values() if isinstance(value, Tensor)]
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    wide = {
        key: value.detach().expand(shape).requires_grad_()
        for key, value in arguments.items()
        if call.is_source(value)
    }
    plain = {key: value.detach() if isinstance(value, Tensor) else value for key, value in arguments.items()}
    given = {**plain, **wide}
    result = call.function(
        *(given[place] for place in range(len(call.args))), **{name: given[name] for name in call.kwargs}
    )
    if not result.requires_grad:
        raise Unsupported("no gradient through it")
    edge, dtype = get_gradient_edge(result), result.dtype

    def use(key: int | str, broadcast: Tensor) -> Use:
        source = arguments[key]

        def form(grad: Tensor, layout: Layout) -> Dense:
            (full,) = torch.autograd.grad(edge, broadcast, grad.to(dtype), retain_graph=True)
            return reduce_to(full, source, layout)

        return Use(source, form)

    return [use(key, broadcast) for key, broadcast in wide.items()]


@rule("prelu", [functional.prelu, torch.prelu, Tensor.prelu])
def prelu(call: Call) -> list[Use]:
    """y = max(x, 0) + a·min(x, 0), one a for all or one a channel."""
    bound = call.bind("input", "weight")
    x, weight = bound["input"], bound["weight"]
    if call.is_source(x) or not call.is_source(weight):
        raise Unsupported("a parameter as the input of an activation")
    saved = Saved(x)
    shape = (-1, *(1,) * (x.ndim - 2)) if weight.numel() > 1 else ()

    def form(grad: Tensor, layout: Layout) -> Dense:
        full = grad * saved.get().clamp(max=0)
        rows = reduce_to(full, weight.detach().reshape(shape), layout).rows
        return Dense(rows.reshape(layout.samples, *weight.shape))

    return [Use(weight, form)]
