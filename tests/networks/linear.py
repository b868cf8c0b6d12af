"""Linear maps in all their spellings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.case import Inputs, Net, case, normal


@case()
def linear_layers(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3))
    return net, (normal(n, 4),)


@case()
def linear_on_tokens(n: int) -> tuple[nn.Module, Inputs]:
    """Enough tokens for per-sample gradients to be formed, few enough in the second layer to go through tokens."""
    net = Net(lambda m, x: m.head(m.body(x).tanh().mean(1)), body=nn.Linear(3, 4), head=nn.Linear(4, 9))
    return net, (normal(n, 17, 3),)


@case()
def linear_function_in_custom_layer(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return functional.linear(functional.linear(x, weight=m.w, bias=m.b).sin(), m.v)

    return Net(forward, w=normal(5, 4), b=normal(5), v=normal(2, 5)), (normal(n, 3, 4),)


@case()
def linear_on_a_constant(n: int) -> tuple[nn.Module, Inputs]:
    """A layer whose input holds no sample: its output is a weight like any other."""
    net = Net(lambda m, x: x * m.layer(torch.ones(1, 3).to(x)), layer=nn.Linear(3, 4))
    return net, (normal(n, 4),)


@case()
def matmul_right(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return torch.matmul(x @ m.a, m.b).tanh().matmul(m.c)

    return Net(forward, a=normal(4, 5), b=normal(5, 3), c=normal(3, 2)), (normal(n, 6, 4),)


@case()
def matmul_left(n: int) -> tuple[nn.Module, Inputs]:
    """Tokens are the columns."""
    net = Net(lambda m, x: torch.matmul(m.b, (m.a @ x).tanh()), a=normal(5, 4), b=normal(2, 5))
    return net, (normal(n, 4, 6),)


@case()
def matmul_vector(n: int) -> tuple[nn.Module, Inputs]:
    net = Net(lambda m, x: torch.stack([x @ m.w, x.mv(m.v)], 1), w=normal(4), v=normal(4))
    return net, (normal(n, 4),)


@case()
def matmul_samples_in_columns(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        hidden = torch.mm(m.a, x.T) + m.bias[:, None]  # [5, N]
        return (m.b @ hidden.tanh()).T

    return Net(forward, a=normal(5, 4), bias=normal(5), b=normal(3, 5)), (normal(n, 4),)


@case()
def matmul_heads(n: int) -> tuple[nn.Module, Inputs]:
    """A stack of matrices, one for each head, broadcast against the batch from either side."""

    def forward(m: Net, x: Tensor) -> Tensor:
        heads = x[:, None] @ m.w  # [N, 3, T, 2]
        return m.left @ heads

    return Net(forward, w=normal(3, 4, 2), left=normal(3, 5, 6)), (normal(n, 6, 4),)


@case()
def bmm_with_expanded_weight(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        count = x.shape[0]
        hidden = torch.bmm(x, m.w.expand(count, -1, -1))
        hidden = torch.baddbmm(m.b.expand(count, 1, -1), hidden.tanh(), m.v.unsqueeze(0).expand(count, 5, 3))
        return torch.bmm(m.u.expand(count, 2, -1), hidden)

    net = Net(forward, w=normal(4, 5), b=normal(3), v=normal(5, 3), u=normal(1, 6))
    return net, (normal(n, 6, 4),)


@case()
def addmm(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        hidden = torch.addmm(m.b, x, m.w, beta=0.5, alpha=2.0).tanh()
        return m.c.addmm(hidden, m.v)

    return Net(forward, b=normal(5), w=normal(4, 5), c=normal(3), v=normal(5, 3)), (normal(n, 4),)


@case()
def einsum(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        hidden = torch.einsum("btc,cd->btd", x, m.a).tanh()
        hidden = torch.einsum("hdk, btd -> bhtk", m.b, hidden)
        hidden = torch.einsum("bhtk,hk->bth", hidden, m.c)
        return torch.einsum("bth,ts->bsh", [hidden, m.mix])

    net = Net(forward, a=normal(4, 5), b=normal(2, 5, 3), c=normal(2, 3), mix=normal(6, 2))
    return net, (normal(n, 6, 4),)


@case()
def einsum_with_ellipsis(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return torch.einsum("...c,cd->...d", x, m.a).sin() @ m.b

    return Net(forward, a=normal(4, 5), b=normal(5, 2)), (normal(n, 6, 4),)


@case(exact=("three", "alone"))
def einsum_refused(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        hidden = torch.einsum("btc,bsc,cd->btsd", x, x, m.three)  # two factors from the batch
        return torch.einsum("btsd,de->btsd", hidden, m.alone) @ m.served

    return Net(forward, three=normal(4, 5), alone=normal(5, 2), served=normal(5, 3)), (normal(n, 3, 4),)


@case()
def outer_products(n: int) -> tuple[nn.Module, Inputs]:
    """Learned frequencies of a time embedding."""
    net = Net(
        lambda m, t: m.out(torch.outer(t, m.frequencies).cos()), frequencies=normal(4), out=nn.Linear(4, 3)
    )
    return net, (normal(n),)


@case(exact=("w", "pair.*"))
def products_without_a_rule(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor, y: Tensor) -> Tensor:
        return m.out(m.pair(x, y)) + torch.tensordot(x, m.w, dims=([1], [1]))

    net = Net(forward, pair=nn.Bilinear(4, 3, 5), w=normal(2, 4), out=nn.Linear(5, 2))
    return net, (normal(n, 4), normal(n, 3))
