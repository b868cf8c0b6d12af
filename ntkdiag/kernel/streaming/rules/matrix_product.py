"""Products with a parameter as one factor: matmul under its names, addmm, baddbmm, einsum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.broadcasting import reduce_to, summed
from ntkdiag.kernel.streaming.contraction.gradients import Dense, Outer, PerSampleGradient
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.general import Call, ParameterUse, SavedTensor, ToGradient, general_rule
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis

MATMULS: list[Callable[..., Any]] = [
    torch.matmul, torch.mm, torch.bmm, torch.mv, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv, Tensor.__matmul__,
    Tensor.__rmatmul__,
]  # fmt: skip


@general_rule("matmul", MATMULS)
def matmul(call: Call) -> list[ParameterUse]:
    """y = a b with one of the two a parameter."""
    if len(call.args) != 2 or call.kwargs:
        raise Unsupported("keyword arguments of a matrix product")
    a, b = call.args
    if call.function is Tensor.__rmatmul__:
        a, b = b, a
    return product(call, a, b)


@general_rule("addmm", [torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm])
def addmm(call: Call) -> list[ParameterUse]:
    """y = β·c + α·(a b)."""
    names = ("input", "batch1", "batch2") if "bmm" in call.function.__name__ else ("input", "mat1", "mat2")
    bound = call.bind(*names, "beta", "alpha", beta=1, alpha=1)
    c, a, b = (bound[name] for name in names)
    uses = (
        [_scaled(use, bound["alpha"]) for use in product(call, a, b)]
        if call.is_parameter(a) or call.is_parameter(b)
        else []
    )
    if call.is_parameter(c):
        beta = bound["beta"]
        uses.append(ParameterUse(c, lambda grad, axis: reduce_to(beta * grad, c, axis)))
    return uses


def product(call: Call, a: Tensor, b: Tensor) -> list[ParameterUse]:
    """The use of the one parameter among the factors of a matrix product."""
    if call.is_parameter(a) and call.is_parameter(b):
        raise Unsupported("both factors are parameters")
    if call.is_parameter(b):
        return [_right_factor(a, b)]
    return [_left_factor(a, b)]


def _right_factor(x: Tensor, weight: Tensor) -> ParameterUse:
    """y = x W."""
    if x.ndim < 2:
        raise Unsupported("one vector for the whole batch")
    saved = SavedTensor(x)

    def vector(grad: Tensor, axis: SampleAxis) -> Dense:
        return Dense((axis.rows(grad, 0)[..., None] * axis.rows(saved.get(), 1)).sum(1))

    def matrix(grad: Tensor, axis: SampleAxis) -> Outer:
        return Outer(*_same_dtype(axis.rows(saved.get(), 1), axis.rows(grad, 1)))

    def stack(grad: Tensor, axis: SampleAxis) -> Dense:
        left, right = _same_dtype(saved.get(), grad)
        if axis.dim == grad.ndim - 1:
            raise Unsupported("the samples are in a dimension that the operation works on")
        if axis.dim < grad.ndim - 2:
            return reduce_to(left.mT @ right, weight, axis)
        left = left.expand(*grad.shape[:-1], -1)  # samples are among the rows: [N, ..., outer, inner, k]
        rows = axis.first(left).flatten(-3, -2).mT @ axis.first(right).flatten(-3, -2)
        return summed(Dense(rows), rows.shape[1:], weight.shape)

    forms: dict[int, ToGradient] = {1: vector, 2: matrix}
    return ParameterUse(weight, forms.get(weight.ndim, stack))


def _left_factor(weight: Tensor, x: Tensor) -> ParameterUse:
    """y = W x, which is yᵀ = xᵀ Wᵀ."""
    if weight.ndim < 2 or x.ndim < 2:
        raise Unsupported("a vector as a factor from the left, or for the whole batch")
    turned = _right_factor(x.mT, weight.mT)

    def gradient(grad: Tensor, axis: SampleAxis) -> PerSampleGradient:
        found = turned.gradient(grad.mT, _turned(axis, grad.ndim))
        if isinstance(found, Outer):
            return Outer(found.right, found.left)
        assert isinstance(found, Dense)  # matrix products have no other forms
        return Dense(found.rows.mT, found.own)

    return ParameterUse(weight, gradient)


def _turned(axis: SampleAxis, ndim: int) -> SampleAxis:
    """The axis of a tensor whose last two dimensions have changed places."""
    swapped = {ndim - 1: ndim - 2, ndim - 2: ndim - 1}
    return SampleAxis(swapped.get(axis.dim, axis.dim), axis.outer, axis.samples, axis.inner)


def _scaled(use: ParameterUse, alpha: float) -> ParameterUse:
    return (
        use if alpha == 1 else ParameterUse(use.tensor, lambda grad, axis: use.gradient(alpha * grad, axis))
    )


def _same_dtype(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Under autocast one factor may be half precision and the other not."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype), right.to(dtype)


@general_rule("einsum", [torch.einsum])
def einsum(call: Call) -> list[ParameterUse]:
    """y = einsum(equation, a, b) with one of the two a parameter."""
    equation, operands = call.args[0], call.args[1:]
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        raise Unsupported("other than an equation and two operands")
    if call.is_parameter(operands[0]) and call.is_parameter(operands[1]):
        raise Unsupported("both factors are parameters")
    labels, out = _labels(equation, [operand.ndim for operand in operands])
    place = 0 if call.is_parameter(operands[0]) else 1
    parameter, x = operands[place], operands[1 - place]
    own, other = labels[place], labels[1 - place]
    if set(own) - set(other) - set(out):
        raise Unsupported("a label of the parameter alone is summed")
    if any(
        label in own and size != parameter.shape[own.index(label)]
        for label, size in zip(other, x.shape, strict=True)
    ):
        raise Unsupported("a dimension that is broadcast")
    saved = SavedTensor(x)

    def gradient(grad: Tensor, axis: SampleAxis) -> Dense:
        sample = out[axis.dim]
        if sample in own or sample not in other:
            raise Unsupported("a row of the parameter for each sample")
        there = SampleAxis(other.index(sample), axis.outer, axis.samples, axis.inner)
        left, right = _same_dtype(axis.first(grad), there.first(saved.get()))  # [N, ..., outer, inner, ...]
        split = {sample: "YZ"}  # capitals that no equation below uses
        labelled = ["X" + "".join(split.get(label, label) for label in side) for side in (out, other)]
        return Dense(torch.einsum(f"{labelled[0]},{labelled[1]}->X{own}", left, right))

    return [ParameterUse(parameter, gradient)]


def _labels(equation: str, ndims: list[int]) -> tuple[list[str], str]:
    """Labels of both operands and of the output, with the ellipsis replaced by capitals.

    Raises:
        Unsupported: implicit output, labels repeated in one operand, or capitals.
    """
    left, arrow, out = equation.replace(" ", "").partition("->")
    sides = left.split(",")
    if not arrow or any(letter.isupper() for letter in equation):
        raise Unsupported("an equation with implicit output or capitals")
    rest = [ndim - len(side.replace("...", "")) for side, ndim in zip(sides, ndims, strict=True)]
    dots = "ABCDEFGH"[: max(0, *rest)]
    sides = [side.replace("...", dots[len(dots) - count :]) for side, count in zip(sides, rest, strict=True)]
    out = out.replace("...", dots)
    if any(len(set(side)) != len(side) for side in (*sides, out)):
        raise Unsupported("labels repeated in one operand")
    return sides, out
