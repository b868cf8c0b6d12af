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
from ntkdiag.kernel.streaming.contraction.gradients import Dense
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.general import Call, ParameterUse, general_rule
from ntkdiag.kernel.streaming.rules.rule import Formula, rule
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis

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


@general_rule("elementwise", ELEMENTWISE)
def elementwise(call: Call) -> list[ParameterUse]:
    """y = f(x, p, ...) elementwise; the gradient by p is reduced over the dimensions p was broadcast along."""
    if "out" in call.kwargs:
        raise Unsupported("an out= argument")
    if call.function in SUMS and not call.kwargs:
        return [_addend(value) for value in call.args if call.is_parameter(value)]
    return _by_autograd(call)


def _addend(parameter: Tensor) -> ParameterUse:
    return ParameterUse(parameter, lambda grad, axis: reduce_to(grad, parameter, axis))


def _by_autograd(call: Call) -> list[ParameterUse]:
    """Run the operation a second time as a function of its parameters: autograd keeps what the derivatives need."""
    arguments: dict[int | str, Any] = dict(enumerate(call.args))
    arguments.update(call.kwargs)
    tensors = [value for value in arguments.values() if isinstance(value, Tensor)]
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    wide = {
        key: value.detach().expand(shape).requires_grad_()
        for key, value in arguments.items()
        if call.is_parameter(value)
    }
    plain = {key: value.detach() if isinstance(value, Tensor) else value for key, value in arguments.items()}
    given = {**plain, **wide}
    result = call.function(
        *(given[place] for place in range(len(call.args))), **{name: given[name] for name in call.kwargs}
    )
    if not result.requires_grad:
        raise Unsupported("no gradient through it")
    edge, dtype = get_gradient_edge(result), result.dtype

    def use(key: int | str, broadcast: Tensor) -> ParameterUse:
        parameter = arguments[key]

        def gradient(grad: Tensor, axis: SampleAxis) -> Dense:
            (full,) = torch.autograd.grad(edge, broadcast, grad.to(dtype), retain_graph=True)
            return reduce_to(full, parameter, axis)

        return ParameterUse(parameter, gradient)

    return [use(key, broadcast) for key, broadcast in wide.items()]


@rule(
    "prelu",
    [functional.prelu, torch.prelu, Tensor.prelu],
    core=lambda input, weight: 0 if weight.numel() == 1 else input.ndim - 1,
)
def prelu(input: Tensor, weight: Tensor) -> dict[str, Formula]:
    """y = max(x, 0) + a·min(x, 0), with one slope a for all or one for each channel."""
    slopes = weight.numel()

    def gradient(grad: Tensor, input: Tensor) -> Tensor:
        full = grad * input.clamp(max=0)
        if slopes == 1:
            return full.sum(1).reshape(-1, *weight.shape)
        return full.reshape(*full.shape[:3], -1).sum((1, 3))

    return {"weight": gradient}
