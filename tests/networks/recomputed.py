"""Blocks that run again in the backward: by autograd Functions of the network's own, and by both kinds of torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from networks.case import Inputs, Net, case, normal


class Recompute(torch.autograd.Function):
    """The block runs without gradients in the forward, and again with them in the backward, as in older U-Nets.

    Its parameters are arguments, so that their gradients can be returned.
    """

    @staticmethod
    def forward(ctx: Any, block: Callable[..., Tensor], count: int, *args: Tensor) -> Tensor:
        ctx.block, ctx.inputs, ctx.parameters = block, list(args[:count]), list(args[count:])
        with torch.no_grad():
            return block(*ctx.inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [tensor.detach().requires_grad_(True) for tensor in ctx.inputs]
        with torch.enable_grad():
            out = ctx.block(*[tensor.view_as(tensor) for tensor in inputs])
        found = torch.autograd.grad((out,), inputs + ctx.parameters, gradients, allow_unused=True)
        return (None, None, *found)


class NestedBackward(torch.autograd.Function):
    """The same with a `.backward()` inside, which accumulates the gradients of parameters in `.grad`."""

    @staticmethod
    def forward(ctx: Any, block: Callable[..., Tensor], x: Tensor) -> Tensor:
        ctx.block, ctx.x = block, x
        with torch.no_grad():
            return block(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None]:
        x = ctx.x.detach().requires_grad_(True)
        with torch.enable_grad():
            ctx.block(x).backward(gradient)
        return None, x.grad


def recomputed(block: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
    """The block on x, by `Recompute`."""
    return Recompute.apply(block, 1, x, *parameters)


@case(exact=("a.*",))
def recompute_first(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.b(recomputed(lambda z: torch.tanh(m.a(z)), x, *m.a.parameters()))

    return Net(forward, a=nn.Linear(4, 5), b=nn.Linear(5, 2)), (normal(n, 4),)


@case(exact=("a.*",))
def recompute_between(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.b(recomputed(lambda z: torch.tanh(m.a(z)), m.first(x).sin(), *m.a.parameters()))

    return Net(forward, first=nn.Linear(4, 4), a=nn.Linear(4, 5), b=nn.Linear(5, 2)), (normal(n, 4),)


@case(exact=("a.*", "b.*"))
def recompute_twice(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        for block in (m.a, m.b):
            x = recomputed(lambda z, block=block: torch.tanh(block(z)), x, *block.parameters())
        return m.c(x)

    return Net(forward, a=nn.Linear(4, 5), b=nn.Linear(5, 5), c=nn.Linear(5, 2)), (normal(n, 4),)


@case(exact=("attention.*", "norm.*"))
def recompute_attention(n: int) -> tuple[nn.Module, Inputs]:
    """An attention block with a convolution before it, as in an image network."""

    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = m.conv(x).flatten(2).mT
        mixed = recomputed(lambda z: z + m.attention(m.norm(z), m.norm(z), m.norm(z), need_weights=False)[0],
                           tokens, *m.attention.parameters(), *m.norm.parameters())  # fmt: skip
        return m.out(mixed)

    net = Net(
        forward,
        conv=nn.Conv2d(2, 4, 3, padding=1),
        norm=nn.LayerNorm(4),
        attention=nn.MultiheadAttention(4, 2, batch_first=True),
        out=nn.Linear(4, 1),
    )
    return net, (normal(n, 2, 3, 3),)


@case(exact=("a.*",))
def recompute_shared(n: int) -> tuple[nn.Module, Inputs]:
    """A parameter of the block is also used outside it."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = recomputed(lambda z: torch.tanh(m.a(z)), m.a(x).sin(), *m.a.parameters())
        return m.b(y) + m.a(y)[:, :2]

    return Net(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 2)), (normal(n, 4),)


@case(exact=("a.*", "gain"))
def nested_backward(n: int) -> tuple[nn.Module, Inputs]:
    """Parameters that are no arguments, one of them also used outside."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.b(NestedBackward.apply(lambda z: torch.tanh(m.a(z)) * m.gain, m.first(x))) * m.gain[:2]

    parts = {"first": nn.Linear(4, 4), "a": nn.Linear(4, 5), "b": nn.Linear(5, 2)}
    return Net(forward, gain=normal(5), **parts), (normal(n, 4),)


@case()
def checkpoint_reentrant(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.b(checkpoint(lambda z: torch.tanh(m.a(z)), m.first(x).sin(), use_reentrant=True))

    return Net(forward, first=nn.Linear(4, 4), a=nn.Linear(4, 5), b=nn.Linear(5, 2)), (normal(n, 4),)


@case()
def checkpoint_not_reentrant(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.b(checkpoint(lambda z: torch.tanh(m.a(z)), x, use_reentrant=False))

    return Net(forward, a=nn.Linear(4, 5), b=nn.Linear(5, 2)), (normal(n, 4),)


@case(exact=("a.*",))
def checkpoint_and_recompute(n: int) -> tuple[nn.Module, Inputs]:
    """Both in one network: `.grad` raises, so the whole network goes through `.backward()`."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = recomputed(lambda z: torch.tanh(m.a(z)), m.first(x), *m.a.parameters())
        return m.c(checkpoint(lambda z: torch.tanh(m.b(z)), y, use_reentrant=True))

    parts = {"first": nn.Linear(4, 4), "a": nn.Linear(4, 5), "b": nn.Linear(5, 5), "c": nn.Linear(5, 2)}
    return Net(forward, **parts), (normal(n, 4),)
