"""Elementwise operations with broadcasting: sums, products, parametric activations, and anything else of that kind.

The derivative by the broadcast parameter comes from autograd on that one operation, so one rule serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.forms import Dense
from ntkdiag.kernel.streaming.layout import Layout
from ntkdiag.kernel.streaming.registry import Call, Saved, Unsupported, Use, rule
from ntkdiag.kernel.streaming.rules.broadcasting import reduce_to

PLAIN = [
    torch.add, torch.sub, torch.mul, torch.div, torch.true_divide, torch.multiply, torch.divide, torch.subtract,
    torch.rsub, torch.addcmul, torch.addcdiv, torch.lerp, torch.where, torch.pow, torch.maximum, torch.minimum,
    torch.clamp, torch.float_power,
    Tensor.add, Tensor.sub, Tensor.mul, Tensor.div, Tensor.true_divide, Tensor.multiply, Tensor.divide, Tensor.subtract,
    Tensor.addcmul, Tensor.addcdiv, Tensor.lerp, Tensor.where, Tensor.pow, Tensor.maximum, Tensor.minimum, Tensor.clamp,
    Tensor.__add__, Tensor.__radd__, Tensor.__sub__, Tensor.__rsub__, Tensor.__mul__, Tensor.__rmul__,
    Tensor.__truediv__, Tensor.__rtruediv__, Tensor.__pow__, Tensor.__rpow__,
]  # fmt: skip

# In-place operation → the one that computes the same values without writing into its first argument.
IN_PLACE: dict[Callable[..., Any], Callable[..., Any]] = {
    Tensor.add_: torch.add, Tensor.sub_: torch.sub, Tensor.mul_: torch.mul, Tensor.div_: torch.div,
    Tensor.__iadd__: torch.add, Tensor.__isub__: torch.sub, Tensor.__imul__: torch.mul, Tensor.__itruediv__: torch.div,
    Tensor.addcmul_: torch.addcmul, Tensor.addcdiv_: torch.addcdiv, Tensor.lerp_: torch.lerp,
}  # fmt: skip
# Of these the derivative by the parameter does not look at the value that is overwritten.
_BLIND_TO_SELF = {Tensor.add_, Tensor.sub_, Tensor.__iadd__, Tensor.__isub__}


@rule("elementwise", [*PLAIN, *IN_PLACE])
def elementwise(call: Call) -> list[Use]:
    """y = f(x, p, ...) elementwise; the gradient by p is reduced over the dimensions p was broadcast along."""
    if "out" in call.kwargs:
        raise Unsupported("an out= argument")
    in_place = call.function in IN_PLACE
    if in_place and call.is_source(call.args[0]):
        raise Unsupported("a parameter that is written into")
    function = IN_PLACE.get(call.function, call.function)
    saved: list[Any] = [_save(value, call, in_place and place == 0) for place, value in enumerate(call.args)]
    kwargs = {name: _save(value, call, False) for name, value in call.kwargs.items()}
    uses = []
    for place, value in enumerate(call.args):
        if call.is_source(value):
            uses.append(Use(value, _form(function, saved, kwargs, place, value)))
    for name, value in call.kwargs.items():
        if call.is_source(value):
            uses.append(Use(value, _form(function, saved, kwargs, name, value)))
    return uses


def _save(value: Any, call: Call, overwritten: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    if overwritten and call.function not in _BLIND_TO_SELF:
        return Saved(value.detach().clone())
    return Saved(value) if not overwritten else Saved(torch.zeros_like(value[:0]).expand(0, *value.shape[1:]))


def _form(
    function: Callable[..., Any], saved: list[Any], kwargs: dict[str, Any], place: int | str, source: Tensor
) -> Callable[[Tensor, Layout], Dense]:
    additive = function in (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__) and not kwargs

    def form(grad: Tensor, layout: Layout) -> Dense:
        if additive:
            return reduce_to(grad, source, layout)
        return reduce_to(_derivative(function, saved, kwargs, place, source, grad), source, layout)

    return form


def _derivative(
    function: Callable[..., Any],
    saved: list[Any],
    kwargs: dict[str, Any],
    place: int | str,
    source: Tensor,
    grad: Tensor,
) -> Tensor:
    """grad · ∂f/∂p with p broadcast to the output's shape."""
    wanted = source.detach().expand(grad.shape).requires_grad_()

    def value(key: int | str, item: Any) -> Any:
        if key == place:
            return wanted
        if not isinstance(item, Saved):
            return item
        kept = item.get()
        return grad.new_zeros(()) if kept.numel() == 0 else kept

    with torch.enable_grad():
        args = [value(key, item) for key, item in enumerate(saved)]
        named = {key: value(key, item) for key, item in kwargs.items()}
        result = function(*args, **named)
    (found,) = torch.autograd.grad(result, wanted, grad.to(result.dtype))
    return found


@rule("prelu", [functional.prelu, torch.prelu, Tensor.prelu])
def prelu(call: Call) -> list[Use]:
    """y = max(x, 0) + a·min(x, 0), one a for all or one a channel."""
    bound = call.bind("input", "weight")
    x, weight = bound["input"], bound["weight"]
    if call.is_source(x) or not call.is_source(weight):
        raise Unsupported("a parameter as the input of an activation")
    saved = Saved(x)

    def form(grad: Tensor, layout: Layout) -> Dense:
        full = grad * saved.get().clamp(max=0)
        shape = (1, -1, *(1,) * (x.ndim - 2)) if weight.numel() > 1 else (1,) * max(1, x.ndim)
        rows = reduce_to(full, weight.detach().reshape(shape), layout).rows
        return Dense(rows.reshape(layout.samples, *weight.shape))

    return [Use(weight, form)]
