"""What happens around the layers: gradients stopped, recomputed, unreachable, and operations without a rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from networks.case import Inputs, Net, case, normal


@case(exact=("lstm.*", "gru.*", "cell.*"))
def recurrent_cells(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.gru(m.lstm(x)[0])[0]
        return m.out(m.cell(y[:, -1])) + m.out(y[:, 0])

    net = Net(
        forward, lstm=nn.LSTM(2, 3, batch_first=True), gru=nn.GRU(3, 3, batch_first=True), cell=nn.RNNCell(3, 3),
        out=nn.Linear(3, 2),
    )  # fmt: skip
    return net, (normal(n, 4, 2),)


@case(unused=("spare.*", "alone"))
def unused_parameters(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        m.alone.exp()
        return m.used(x)

    return Net(forward, used=nn.Linear(4, 2), spare=nn.Linear(3, 3), alone=normal(2)), (normal(n, 4),)


@case()
def unreached_parameters(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        m.aside(x).sum()
        return m.used(x) + m.stopped(x).detach()

    net = Net(forward, used=nn.Linear(4, 2), aside=nn.Linear(4, 3), stopped=nn.Linear(4, 2))
    return net, (normal(n, 4),)


@case()
def frozen_parameters(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(
        nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)
    )
    net[0].requires_grad_(False)
    net[3].weight.requires_grad_(False)
    return net, (normal(n, 4),)


@case(unused=("encoder.*",))
def encoder_without_gradient(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        with torch.no_grad():
            code = m.encoder(x)
        return m.decoder(code.tanh())

    return Net(forward, encoder=nn.Linear(4, 5), decoder=nn.Linear(5, 2)), (normal(n, 4),)


@case()
def straight_through(n: int) -> tuple[nn.Module, Inputs]:
    """Rounded codes with the gradient of what was rounded."""

    def forward(m: Net, x: Tensor) -> Tensor:
        code = m.encoder(x)
        code = code + (code.round() - code).detach()
        return m.decoder(code)

    return Net(forward, encoder=nn.Linear(4, 3), decoder=nn.Linear(3, 2)), (normal(n, 4),)


@case()
def checkpointed(n: int) -> tuple[nn.Module, Inputs]:
    """Both kinds, the function imported by name and reached through its module."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.start(x)
        y = checkpoint(m.first, y, use_reentrant=True)
        y = torch.utils.checkpoint.checkpoint(lambda z: m.second(z) + m.shift, y, use_reentrant=False)
        return torch.utils.checkpoint.checkpoint_sequential(m.rest, 2, y, use_reentrant=False)

    def block() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    net = Net(
        forward,
        start=nn.Linear(4, 4),
        first=block(),
        second=block(),
        shift=normal(4),
        rest=nn.Sequential(block(), block()),
    )
    return net, (normal(n, 4),)


@case()
def overwritten_activations(n: int) -> tuple[nn.Module, Inputs]:
    """In-place activations behind layers, as image networks have them."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.GroupNorm(1, 3), nn.SiLU(inplace=True), nn.Conv2d(3, 2, 1),
        nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.5, inplace=True),
    )  # fmt: skip
    return net, (normal(n, 2, 4, 4),)


@case()
def overwritten_tokens(n: int) -> tuple[nn.Module, Inputs]:
    """Maps of tokens return views of matrices, which in-place operations then write into."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.b(m.a(x).relu_())
        z = torch.einsum("ntc,cd->ntd", y, m.c).mul_(2).sin_()
        return (z @ m.d).clamp_(min=-1)

    net = Net(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=normal(4, 3), d=normal(3, 2))
    return net, (normal(n, 5, 3),)


@case()
def dropout_in_eval_mode(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.b(functional.dropout(m.drop(m.a(x)), 0.5, training=m.training))

    return Net(forward, a=nn.Linear(4, 4), drop=nn.Dropout(0.5), b=nn.Linear(4, 2)), (normal(n, 4),)


@case()
def written_buffers(n: int) -> tuple[nn.Module, Inputs]:
    """A counter, a cache and an attribute that every forward writes."""

    def forward(m: Net, x: Tensor) -> Tensor:
        m.count += 1
        m.seen.copy_(m.seen * 0.5)
        m.cache = m.layer(x)
        return m.cache * 2

    net = Net(forward, layer=nn.Linear(4, 2))
    net.register_buffer("count", torch.zeros(()))
    net.register_buffer("seen", torch.ones(4))
    return net, (normal(n, 4),)


@case(exact=("layer.*",))
def gradient_inside(n: int) -> tuple[nn.Module, Inputs]:
    """The score of an energy network: the output is itself a gradient."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        energy = m.layer(x).tanh().square().sum()
        (score,) = torch.autograd.grad(energy, x, create_graph=True)
        return m.out(score)

    return Net(forward, layer=nn.Linear(4, 5), out=nn.Linear(4, 2)), (normal(n, 4),)


class Scaled(torch.autograd.Function):
    """x · w with a backward of its own, which torch's function modes do not see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return gradient * w, (gradient * x).sum(0)


@case(exact=("inside",))
def custom_function(n: int) -> tuple[nn.Module, Inputs]:
    scaled = Scaled.apply
    net = Net(
        lambda m, x: m.b(scaled(m.a(x), m.inside).tanh()),
        a=nn.Linear(4, 3),
        inside=normal(3),
        b=nn.Linear(3, 2),
    )
    return net, (normal(n, 4),)


@case(exact=("inside", "gain"))
def custom_function_first(n: int) -> tuple[nn.Module, Inputs]:
    """It stands where no activation requires a gradient yet, and one of its weights is derived."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.out(Scaled.apply(x, m.inside * m.gain).tanh())

    return Net(forward, inside=normal(4), gain=normal(4), out=nn.Linear(4, 2)), (normal(n, 4),)


@case()
def custom_function_frozen(n: int) -> tuple[nn.Module, Inputs]:
    """A tensor that requires a gradient and is no parameter: activations carry a graph of their own."""
    loose = torch.randn(4, requires_grad=True)
    return Net(lambda m, x: m.out(Scaled.apply(x, loose.to(x)).tanh()), out=nn.Linear(4, 2)), (normal(n, 4),)


class Halved(torch.autograd.Function):
    """The identity with half the gradient: torch's modes do not see the tensor that comes out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / 2


@case()
def scaled_gradients(n: int) -> tuple[nn.Module, Inputs]:
    net = Net(lambda m, x: m.b(Halved.apply(m.a(x)).tanh()), a=nn.Linear(4, 3), b=nn.Linear(3, 2))
    return net, (normal(n, 4),)


@case(exact=("layer.*",))
def transform_inside(n: int) -> tuple[nn.Module, Inputs]:
    """A directional derivative by torch.func, hidden from the recorder, and what comes after it."""

    def forward(m: Net, x: Tensor) -> Tensor:
        value, slope = torch.func.jvp(lambda z: m.layer(z).tanh(), (m.first(x),), (torch.ones_like(x),))
        return m.out(value * slope)

    net = Net(forward, first=nn.Linear(4, 4), layer=nn.Linear(4, 5), out=nn.Linear(5, 2))
    return net, (normal(n, 4),)


@case()
def backward_hooks(n: int) -> tuple[nn.Module, Inputs]:
    """The user's own hooks on modules hand tensors over behind the recorder's back."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    net[2].register_full_backward_hook(lambda module, into, out: None)
    net[1].register_full_backward_hook(lambda module, into, out: None)
    return net, (normal(n, 4),)


@case()
def nested_outputs(n: int) -> tuple[nn.Module, Inputs]:
    """Splits, unbinds, sorts and dictionaries of activations between layers."""

    def forward(m: Net, x: Tensor) -> Tensor:
        parts = {"left": x.split(2, -1)[0], "rest": [x.unbind(1)[0], x.max(1)]}
        left, (first, (largest, _)) = parts["left"], parts["rest"]
        return m.a(left).flatten(1) + m.b(first) * m.b(largest.sort(-1).values)

    return Net(forward, a=nn.Linear(2, 2), b=nn.Linear(4, 6)), (normal(n, 3, 4),)


@case(exact=("experts.*",))
def experts_for_tokens(n: int) -> tuple[nn.Module, Inputs]:
    """A mixture of experts: each token goes to one of them."""

    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, chosen = m.gate(tokens).softmax(-1).max(-1)
        out = torch.zeros_like(tokens)
        for place, expert in enumerate(m.experts):
            mine = (chosen == place).nonzero().squeeze(1)
            out.index_add_(0, mine, expert(tokens[mine]) * weights[mine, None])
        return m.out(out.unflatten(0, x.shape[:2]))

    experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)])
    net = Net(forward, gate=nn.Linear(4, 3), experts=experts, out=nn.Linear(4, 2))
    return net, (normal(n, 3, 4),)


@case(exact=("experts.*", "scale"))
def experts_for_samples(n: int) -> tuple[nn.Module, Inputs]:
    """One sample a row, sorted by expert and put back: shapes do not tell that rows have changed places."""

    def forward(m: Net, x: Tensor) -> Tensor:
        order = x[:, 0].argsort()
        mixed = m.experts[0](x[order]).tanh() @ m.experts[1].weight
        back = torch.zeros_like(x)
        back[order] = mixed
        return m.out(back) + m.scale * x[order][order.argsort()][:, :2]

    net = Net(
        forward,
        experts=nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3, bias=False)]),
        scale=normal(2),
        out=nn.Linear(4, 2),
    )
    return net, (normal(n, 4),)
