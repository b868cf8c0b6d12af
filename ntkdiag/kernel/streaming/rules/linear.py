"""Linear maps: F.linear, matmul and its spellings, addmm, bmm, baddbmm, einsum with a parameter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.forms import Dense, Outer
from ntkdiag.kernel.streaming.layout import Layout
from ntkdiag.kernel.streaming.registry import Call, Saved, Unsupported, Use, rule
from ntkdiag.kernel.streaming.rules.broadcasting import reduce_to


@rule("linear", [functional.linear])
def linear(call: Call) -> list[Use]:
    """y = x Wᵀ + b."""
    bound = call.bind("input", "weight", "bias")
    x, weight, bias = bound["input"], bound["weight"], bound["bias"]
    if call.is_source(x):
        raise Unsupported("a parameter as the input of a linear layer whose weight meets the batch")
    uses = []
    if call.is_source(weight):
        saved = Saved(x)
        uses.append(
            Use(
                weight,
                lambda grad, layout: Outer(*_same_dtype(layout.rows(grad, 1), layout.rows(saved.get(), 1))),
            )
        )
    if call.is_source(bias):
        uses.append(Use(bias, lambda grad, layout: Dense(layout.rows(grad, 1).sum(1))))
    return uses


MATMULS = [torch.matmul, torch.mm, torch.bmm, torch.mv, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv,
           Tensor.__matmul__, Tensor.__rmatmul__]  # fmt: skip


@rule("matmul", MATMULS)
def matmul(call: Call) -> list[Use]:
    """y = a b with one of the two a parameter."""
    if len(call.args) != 2 or call.kwargs:
        raise Unsupported("keyword arguments of a matrix product")
    a, b = call.args
    if call.function is Tensor.__rmatmul__:
        a, b = b, a
    return product(call, a, b)


@rule("addmm", [torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm])
def addmm(call: Call) -> list[Use]:
    """y = β·c + α·(a b)."""
    names = ("input", "batch1", "batch2") if "bmm" in call.function.__name__ else ("input", "mat1", "mat2")
    bound = call.bind(*names, "beta", "alpha", beta=1, alpha=1)
    c, a, b = (bound[name] for name in names)
    uses = (
        [_scaled(use, bound["alpha"]) for use in product(call, a, b)]
        if call.is_source(a) or call.is_source(b)
        else []
    )
    if call.is_source(c):
        beta = bound["beta"]
        uses.append(Use(c, lambda grad, layout: reduce_to(beta * grad, c, layout)))
    return uses


def product(call: Call, a: Tensor, b: Tensor) -> list[Use]:
    """Uses of the source among the factors of a matrix product."""
    if call.is_source(a) and call.is_source(b):
        raise Unsupported("both factors are parameters")
    if call.is_source(b):
        return [_right_factor(a, b)]
    return [_left_factor(a, b)]


def _right_factor(x: Tensor, weight: Tensor) -> Use:
    """y = x W."""
    saved = Saved(x)
    if weight.ndim == 2 and x.ndim >= 2:
        return Use(
            weight,
            lambda grad, layout: Outer(*_same_dtype(layout.rows(saved.get(), 1), layout.rows(grad, 1))),
        )
    if weight.ndim == 1:
        return Use(
            weight,
            lambda grad, layout: Dense(
                (layout.rows(grad, 0)[..., None] * layout.rows(saved.get(), 1)).sum(1)
            ),
        )
    if x.ndim == 1:
        raise Unsupported("a vector times a stack of matrices")
    return Use(weight, lambda grad, layout: reduce_to(saved.get().mT @ grad, weight, _leading(layout, grad)))


def _left_factor(weight: Tensor, x: Tensor) -> Use:
    """y = W x, the samples in the leading dimensions of x."""
    if x.ndim < 2 or (x.ndim == 2 and weight.ndim <= 2):
        return _left_of_columns(weight, x)
    saved = Saved(x)
    if weight.ndim == 2:
        return Use(
            weight,
            lambda grad, layout: Outer(*_same_dtype(_columns(layout, grad), _columns(layout, saved.get()))),
        )
    if weight.ndim == 1:
        raise Unsupported("a vector parameter times a stack of matrices")
    return Use(weight, lambda grad, layout: reduce_to(grad @ saved.get().mT, weight, _leading(layout, grad)))


def _left_of_columns(weight: Tensor, x: Tensor) -> Use:
    """y = W x with the samples among the columns of a matrix x."""
    if x.ndim != 2 or weight.ndim != 2:
        raise Unsupported("a parameter times one vector for the whole batch")
    saved = Saved(x)

    def form(grad: Tensor, layout: Layout) -> Outer:
        turned = Layout(0, layout.outer, layout.samples, layout.inner)
        if layout.dim != 1:
            raise Unsupported("samples among the rows of a parameter times a matrix")
        return Outer(*_same_dtype(turned.rows(grad.T, 1), turned.rows(saved.get().T, 1)))

    return Use(weight, form)


def _columns(layout: Layout, tensor: Tensor) -> Tensor:
    """[N, k, rows, columns] → tokens are the columns: [N, k·columns, rows]."""
    return layout.rows(tensor, 2).mT.flatten(1, 2)


def _leading(layout: Layout, grad: Tensor) -> Layout:
    if layout.dim >= grad.ndim - 2:
        raise Unsupported("samples in the rows or columns of a stack of matrices")
    return layout


def _scaled(use: Use, alpha: float) -> Use:
    return use if alpha == 1 else Use(use.source, lambda grad, layout: use.form(alpha * grad, layout))


def _same_dtype(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Under autocast one factor may be half precision and the other not."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype), right.to(dtype)


@rule("einsum", [torch.einsum])
def einsum(call: Call) -> list[Use]:
    """y = einsum(equation, a, b) with one of the two a parameter."""
    equation, operands = call.args[0], call.args[1:]
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or "." in equation or len(operands) != 2:
        raise Unsupported("einsum other than 'two,operands->output' without an ellipsis")
    left_side, _, out = equation.replace(" ", "").partition("->")
    labels = left_side.split(",")
    if "->" not in equation or any(len(set(each)) != len(each) for each in labels):
        raise Unsupported("einsum with implicit output or repeated labels")
    place = 0 if call.is_source(operands[0]) else 1
    if call.is_source(operands[1 - place]):
        raise Unsupported("both factors are parameters")
    source, x = operands[place], operands[1 - place]
    own, other = labels[place], labels[1 - place]
    if set(own) - set(other) - set(out):
        raise Unsupported("einsum that sums a label of the parameter alone")
    saved = Saved(x)

    def form(grad: Tensor, layout: Layout) -> Dense:
        sample = out[layout.dim]
        if layout.outer * layout.inner != 1 or sample in own or sample not in other:
            raise Unsupported("einsum over a folded batch, or with a row of the parameter a sample")
        return Dense(torch.einsum(f"{out},{other}->{sample}{own}", *_same_dtype(grad, saved.get())))

    return [Use(source, form)]
