"""Parameters that become tokens of a sequence: class and register tokens, position tables, learned queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.case import Inputs, Net, case, normal


@case()
def tokens_expanded(n: int) -> tuple[nn.Module, Inputs]:
    """A class token in front and registers behind, spread over the batch in three ways."""

    def forward(m: Net, x: Tensor) -> Tensor:
        count = x.shape[0]
        tokens = [
            m.cls.expand(count, -1, -1),
            x,
            m.registers.repeat(count, 1, 1),
            m.last.repeat_interleave(count, 0),
        ]
        return m.out(torch.cat(tokens, dim=1)).tanh()

    net = Net(
        forward, cls=normal(1, 1, 4), registers=normal(1, 2, 4), last=normal(1, 1, 4), out=nn.Linear(4, 3)
    )  # fmt: skip
    return net, (normal(n, 3, 4),)


@case()
def tokens_stacked(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        own = m.a.expand_as(x)
        return torch.stack([x, own, m.b.repeat(x.shape[0], 1)], dim=-2).flatten(1).cos()

    return Net(forward, a=normal(4), b=normal(4)), (normal(n, 4),)


@case()
def tokens_changed_before_they_are_joined(n: int) -> tuple[nn.Module, Inputs]:
    """An expanded token that goes through a layer, and one that the batch is added to in place."""

    def forward(m: Net, x: Tensor) -> Tensor:
        token = m.layer(m.token.expand(x.shape[0], -1, -1))
        mixed = torch.cat([token, x], 1).tanh()
        return mixed + m.scale.repeat(x.shape[0], 4, 1)

    net = Net(forward, token=normal(1, 1, 4), layer=nn.Linear(4, 4), scale=normal(1, 1, 4))
    return net, (normal(n, 3, 4),)


@case(exact=("token",))
def tokens_written_into(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        token = m.token.repeat(x.shape[0], 1, 1)
        token += x[:, :1]
        return m.out(torch.cat([token, x], 1))

    return Net(forward, token=normal(1, 1, 4), out=nn.Linear(4, 2)), (normal(n, 3, 4),)


@case(exact=("first", "slot"))
def tokens_set_by_index(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = x * m.scale
        y[:, 0] = m.first
        z = x.new_empty(x.shape[0], 4, 4)
        z[:, 0] = m.slot
        z[:, 1:] = y
        return z.tanh()

    return Net(forward, scale=normal(4), first=normal(4), slot=normal(4)), (normal(n, 3, 4),)


@case()
def tokens_masked(n: int) -> tuple[nn.Module, Inputs]:
    """Samples whose condition is dropped receive a learned one."""

    def forward(m: Net, x: Tensor, dropped: Tensor) -> Tensor:
        return m.out(torch.where(dropped[:, None, None] > 0, m.null, x))

    net = Net(forward, null=normal(3, 4), out=nn.Linear(4, 2))
    return net, (normal(n, 3, 4), torch.randint(0, 2, (n,)))


@case()
def positions(n: int) -> tuple[nn.Module, Inputs]:
    """Tables sliced, looked up by a range, interpolated, and one along each axis."""

    def forward(m: Net, x: Tensor) -> Tensor:
        length = x.shape[1]
        y = x + m.sliced[:, :length] + m.looked_up(torch.arange(length, device=x.device))
        wide = functional.interpolate(m.small.permute(0, 2, 1), size=length, mode="linear")
        y = (y + wide.permute(0, 2, 1)).tanh()
        return y.unflatten(1, (2, 3)) * m.rows[:, None] + m.columns[None, :3]

    net = Net(
        forward, sliced=normal(1, 9, 4), looked_up=nn.Embedding(8, 4), small=normal(1, 3, 4), rows=normal(2, 4),
        columns=normal(5, 4),
    )  # fmt: skip
    return net, (normal(n, 6, 4),)


@case()
def learned_queries(n: int) -> tuple[nn.Module, Inputs]:
    """Latents that attend to the tokens, and learned tokens that are attended to."""

    def forward(m: Net, x: Tensor) -> Tensor:
        count = x.shape[0]
        q = m.query(m.latents.expand(count, -1, -1))[:, None]
        k, v = m.key(x)[:, None], m.value(x)[:, None]
        read = functional.scaled_dot_product_attention(q, k, v)  # [N, 1, 2, 4]
        own = m.memory[None, None].expand(count, 1, -1, -1)
        mask = torch.ones(2, 3, device=x.device).tril(1).bool()
        return functional.scaled_dot_product_attention(
            read, own, own.sin(), attn_mask=mask, scale=0.7
        ).squeeze(1)

    net = Net(
        forward, latents=normal(1, 2, 4), query=nn.Linear(4, 4), key=nn.Linear(4, 4), value=nn.Linear(4, 4),
        memory=normal(3, 4),
    )  # fmt: skip
    return net, (normal(n, 5, 4),)
