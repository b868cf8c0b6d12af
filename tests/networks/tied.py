"""Parameters used more than once: the per-sample gradient is the sum over uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.case import Inputs, Net, case, normal


@case()
def tied_embedding(n: int) -> tuple[nn.Module, Inputs]:
    """A table that is also the output layer."""
    net = Net(
        lambda m, i: m.out(m.body(m.table(i)).tanh()),
        table=nn.Embedding(5, 4),
        body=nn.Linear(4, 4),
        out=nn.Linear(4, 5),
    )
    net.out.weight = net.table.weight
    return net, (torch.randint(0, 5, (n, 3)),)


@case()
def tied_table_alone(n: int) -> tuple[nn.Module, Inputs]:
    """One table looked up twice, at different places."""
    net = Net(lambda m, i, j: (m.table(i) * m.table(j)).sum(1), table=nn.Embedding(5, 4))
    return net, (torch.randint(0, 5, (n, 3)), torch.randint(0, 5, (n, 3)))


@case()
def tied_module_called_twice(n: int) -> tuple[nn.Module, Inputs]:
    shared = nn.Linear(4, 4)
    return nn.Sequential(shared, nn.Tanh(), nn.LayerNorm(4), shared, nn.Sigmoid(), shared), (normal(n, 3, 4),)


@case()
def tied_transposed(n: int) -> tuple[nn.Module, Inputs]:
    """An autoencoder with one weight: W there, Wᵀ back; and two parts of it elsewhere."""

    def forward(m: Net, x: Tensor) -> Tensor:
        code = functional.linear(x, m.w).tanh()
        return code @ m.w + functional.linear(x[..., :2], m.w[:, :2].T @ m.w[:, 2:])[..., :1]

    return Net(forward, w=normal(3, 4)), (normal(n, 5, 4),)


@case()
def tied_resolutions(n: int) -> tuple[nn.Module, Inputs]:
    """One convolution at two resolutions."""

    def forward(m: Net, x: Tensor) -> Tensor:
        fine = m.conv(x).tanh()
        return fine + functional.interpolate(m.conv(functional.avg_pool2d(fine, 2)), scale_factor=2)

    return Net(forward, conv=nn.Conv2d(2, 2, 3, padding=1)), (normal(n, 2, 4, 4),)


@case()
def tied_over_time(n: int) -> tuple[nn.Module, Inputs]:
    """A recurrent network written out, which walks over the steps of a sequence."""

    def forward(m: Net, x: Tensor) -> Tensor:
        state = m.start.expand(x.shape[0], -1)
        states = []
        for step in x.transpose(0, 1):
            state = torch.tanh(m.input(step) + m.state(state))
            states.append(state)
        return torch.stack(states, 1)

    return Net(forward, start=normal(3), input=nn.Linear(2, 3), state=nn.Linear(3, 3)), (normal(n, 4, 2),)


@case()
def tied_with_one_use_unreached(n: int) -> tuple[nn.Module, Inputs]:
    """Two uses, one of which the output does not depend on."""

    def forward(m: Net, x: Tensor) -> Tensor:
        m.layer(x.square()).sum()
        return m.layer(x).tanh() + m.layer(x + 1).detach()

    return Net(forward, layer=nn.Linear(4, 3)), (normal(n, 4),)
