"""Elementwise operations with a broadcast parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.case import Inputs, Net, case, normal


@case()
def elementwise_arithmetic(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a + x * m.b - m.c
        y = m.d - y / (2 + m.e.exp())
        y = m.f / (3 + y * y)
        return torch.sub(torch.add(y, m.g, alpha=2.0), m.h, alpha=0.5) + 2 * m.i * y

    net = Net(
        forward, a=normal(4), b=normal(3, 1), c=normal(2, 1, 1), d=normal(2, 3, 4), e=normal(1), f=normal(),
        g=normal(1, 4), h=normal(2, 3, 1), i=normal(1, 2, 1, 1),
    )  # fmt: skip
    return net, (normal(n, 2, 3, 4),)


@case()
def elementwise_in_place(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = x * 1.0
        y += m.a
        y.mul_(m.b)
        y *= m.c
        y = y.sin()
        y.sub_(m.d, alpha=2.0).div_(2 + m.e**2)
        y.addcmul_(x, m.f, value=0.5)
        return y.lerp_(x, m.g)

    return Net(forward, **{name: normal(4) for name in "abcdefg"}), (normal(n, 3, 4),)


@case()
def elementwise_in_place_on_a_view(n: int) -> tuple[nn.Module, Inputs]:
    """The rest of the network sees the tensor behind the view, and only that."""

    def forward(m: Net, x: Tensor) -> Tensor:
        hidden = m.layer(x)
        hidden[:, 0].add_(m.first)
        hidden.transpose(1, 2).mul_(m.scale)
        hidden[..., 1:] *= m.rest
        return hidden.tanh()

    net = Net(forward, layer=nn.Linear(4, 4), first=normal(4), scale=normal(3), rest=normal(3))
    return net, (normal(n, 3, 4),)


@case()
def elementwise_on_the_inputs(n: int) -> tuple[nn.Module, Inputs]:
    """A forward that writes into what it was given."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x += m.shift
        x.mul_(2)
        return m.out(x.tanh())

    return Net(forward, shift=normal(4), out=nn.Linear(4, 2)), (normal(n, 4),)


@case()
def elementwise_overwritten_later(n: int) -> tuple[nn.Module, Inputs]:
    """The operand is changed in place after a subtraction, whose derivative does not need it."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.layer(x)
        z = y - m.shift
        w = torch.where(x > 0, y, m.other)
        y.relu_()
        return y + z + w

    return Net(forward, layer=nn.Linear(4, 4), shift=normal(4), other=normal(1)), (normal(n, 4),)


@case()
def elementwise_mixtures(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = torch.addcmul(m.a, x, m.b, value=0.5)
        y = torch.lerp(y, m.c, 0.3)
        y = torch.lerp(x, y, m.weight)
        y = torch.where(x > 0, y, m.d)
        y = torch.addcdiv(y, m.e, 2 + x * x)
        return y.masked_fill(x > 1, m.token)

    net = Net(forward, weight=normal(4), token=normal(), **{name: normal(4) for name in "abcde"})
    return net, (normal(n, 3, 4),)


@case()
def elementwise_bounds(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = torch.maximum(x, m.floor).minimum(m.ceiling)
        return torch.clamp(y + x, min=m.low, max=m.high) + (x.abs() + 1) ** m.power + m.base.abs() ** x

    parts = {name: normal(4) for name in ("floor", "ceiling", "low", "power", "base")}
    return Net(forward, high=normal(4) + 3, **parts), (normal(n, 3, 4),)


@case()
def elementwise_twice_in_one_call(n: int) -> tuple[nn.Module, Inputs]:
    return Net(lambda m, x: torch.addcmul(x, m.p, m.p) * m.p, p=normal(4)), (normal(n, 3, 4),)


@case()
def activations(n: int) -> tuple[nn.Module, Inputs]:
    """Snake, a Swish with a learned slope, PReLU with one slope and with one a channel."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = x + (m.alpha * x).sin().square() / m.alpha
        y = m.one(y * torch.sigmoid(m.beta * y))
        return (
            functional.prelu(m.each(y).flatten(2), m.again)
            + m.each(y.flatten(1, 2).mean(-1).unflatten(1, (4, 3)))[..., :1]
        )

    net = Net(
        forward, alpha=1 + normal(4, 1, 1).abs(), beta=normal(1), one=nn.PReLU(), each=nn.PReLU(4), again=normal(4)
    )  # fmt: skip
    return net, (normal(n, 4, 3, 2),)


@case(unused=("threshold",))
def comparisons(n: int) -> tuple[nn.Module, Inputs]:
    """A parameter is used where no gradient flows: as a threshold, or for its dtype and device."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x = x.to(m.scale).type_as(m.scale).expand_as(m.scale.expand(x.shape[0], 3, 4))
        return torch.where(x > m.threshold, x * m.scale, x.new_zeros(4) + m.shift)

    return Net(forward, threshold=normal(4), scale=normal(4), shift=normal(4)), (normal(n, 3, 4),)
