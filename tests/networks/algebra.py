"""Linear algebra with parameters inside, and parameters of unusual shapes: scalars, and one without elements."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from networks.case import Inputs, Net, case, normal


@case()
def determinant(n: int) -> tuple[nn.Module, Inputs]:
    return Net(lambda m, x: torch.linalg.det(m.p * x)[:, None], p=normal(3, 3)), (normal(n, 3, 3),)


@case()
def log_determinant(n: int) -> tuple[nn.Module, Inputs]:
    return Net(lambda m, x: torch.linalg.slogdet(m.p * x)[1][:, None], p=normal(3, 3)), (normal(n, 3, 3),)


@case(exact=("p",))
def solve_each(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        matrix = m.p + 3 * torch.eye(3).to(x)
        return torch.stack([torch.linalg.solve(matrix, each) for each in x])

    return Net(forward, p=normal(3, 3)), (normal(n, 3, 2),)


@case(exact=("w",))
def solve_together(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return torch.linalg.solve(m.w + 3 * torch.eye(3).to(x), x.T).T

    return Net(forward, w=normal(3, 3)), (normal(n, 3),)


@case(exact=("p",))
def solve_triangular(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        lower = m.p.tril() + 2 * torch.eye(3).to(x)
        return m.out(torch.linalg.solve_triangular(lower, x.mT, upper=False).mT)

    return Net(forward, p=normal(3, 3), out=nn.Linear(3, 2)), (normal(n, 4, 3),)


@case()
def implicit_layer(n: int) -> tuple[nn.Module, Inputs]:
    """The fixed point of z = A z + x, by one solve a sample."""

    def forward(m: Net, x: Tensor) -> Tensor:
        gate = torch.sigmoid(m.gate(x))[:, :, None] * (m.a / 8)
        return torch.linalg.solve(torch.eye(3).to(x) - gate, x)

    return Net(forward, a=normal(3, 3), gate=nn.Linear(3, 3)), (normal(n, 3),)


@case()
def inverse_and_eigenvalues(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        matrix = m.p * x
        symmetric = matrix @ matrix.mT + torch.eye(3).to(x)
        return torch.linalg.eigvalsh(symmetric) + torch.linalg.inv(symmetric).sum(-1)

    return Net(forward, p=normal(3, 3)), (normal(n, 3, 3),)


@case(exact=("w",))
def distances_behind_prelu(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.act(torch.cdist(x, m.w[None].expand(len(x), 8, 8)) - 2)

    return Net(forward, act=nn.PReLU(), w=normal(8, 8)), (normal(n, 4, 8),)


@case()
def prelu_channels(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 2), nn.PReLU())
    return net, (normal(n, 4),)


@case(exact=("w",))
def scalars(n: int) -> tuple[nn.Module, Inputs]:
    """A gate, a temperature as in contrastive networks, and a scalar behind an operation without a rule."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.layer(x) * m.gate.tanh() * m.logit_scale.exp()
        return y + torch.cdist(x, m.w)[:, :2] ** m.power.sigmoid()

    parts = {"gate": normal(), "logit_scale": normal(), "power": normal(), "w": normal(3, 4)}
    return Net(forward, layer=nn.Linear(4, 2), **parts), (normal(n, 4),)


@case()
def weight_norm_of_the_whole(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3), dim=None), nn.Tanh(), nn.Linear(3, 2))
    return net, (normal(n, 4),)


@case()
def no_elements(n: int) -> tuple[nn.Module, Inputs]:
    """A parameter of size zero joined to each sample, as a prompt of no tokens is."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.layer(torch.cat([m.empty.expand(len(x), 0, 4), x], 1))

    return Net(forward, empty=torch.zeros(1, 0, 4), layer=nn.Linear(4, 2)), (normal(n, 3, 4),)


@case(exact=("p",))
def solve_beside_a_pooled_head(n: int) -> tuple[nn.Module, Inputs]:
    """The gradient that the backward of `solve` reads is an expanded one, which the head's bias reads too."""

    def forward(m: Net, x: Tensor) -> Tensor:
        h = torch.tanh(m.first(x))
        matrix = m.p @ m.p.T + 2 * torch.eye(4).to(x)
        return m.head((h + torch.linalg.solve(matrix, h.mT).mT).mean(1))

    return Net(forward, first=nn.Linear(4, 4), p=normal(4, 4), head=nn.Linear(4, 3)), (normal(n, 4, 4),)
