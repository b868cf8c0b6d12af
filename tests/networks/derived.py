"""Weights that are computed from parameters: views, casts, normalised and low-rank weights."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from networks.case import Inputs, Net, case, normal


@case()
def views(n: int) -> tuple[nn.Module, Inputs]:
    """Chunks, transposes, rows, columns and strides of one parameter."""

    def forward(m: Net, x: Tensor) -> Tensor:
        a, b = m.packed.chunk(2)
        y = functional.linear(x, a).tanh() @ b[:, ::2]
        return (
            y * m.packed[0, :2] + m.packed.T[1:3, 5] + functional.linear(y, m.flat[4:].view(2, 2), m.flat[:2])
        )

    return Net(forward, packed=normal(8, 4), flat=normal(8)), (normal(n, 3, 4),)


@case()
def views_that_overlap(n: int) -> tuple[nn.Module, Inputs]:
    """Elements shown twice: a Toeplitz weight unfolded from a vector, and an expanded one."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return (x @ m.band.unfold(0, 4, 1)).tanh() + x @ m.same.expand(4, 4)

    return Net(forward, band=normal(7), same=normal(4, 1)), (normal(n, 3, 4),)


@case()
def views_of_a_strided_parameter(n: int) -> tuple[nn.Module, Inputs]:
    """A parameter that is itself a strided view of a larger storage, used whole, by parts and in sums."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = functional.linear(x, m.w).tanh()
        return y @ m.w[:, 1:] + y @ (2 * m.w)[:, 1:]

    return Net(forward, w=normal(4, 8)[:, ::2]), (normal(n, 4),)


@case()
def casts(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = functional.linear(x, m.w.to(x.dtype).clone(), m.b.type_as(m.w).contiguous())
        return y * m.gain.double().to(x).to(x.device)

    return Net(forward, w=normal(3, 4), b=normal(3), gain=normal(3)), (normal(n, 4),)


@case()
def masked_weight(n: int) -> tuple[nn.Module, Inputs]:
    """Copies that are written into by constants, directly and through a view."""

    def forward(m: Net, x: Tensor) -> Tensor:
        first, second = m.w.clone(), m.w.clone()
        first[0] = 0.0
        second.view(-1)[::2].mul_(3.0)
        third = m.w.sin()
        y = functional.linear(x, first).tanh() + functional.linear(x, second) + functional.linear(x, third)
        third.mul_(m.w)  # after its first use
        constant = torch.zeros_like(third)
        constant[1:] = m.w[1:]
        return y + functional.linear(x, third) + functional.linear(x, constant)

    return Net(forward, w=normal(3, 4)), (normal(n, 4),)


@case()
def weight_norm(n: int) -> tuple[nn.Module, Inputs]:
    """By hooks, as it was done for long, and by parametrization."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        old = nn.utils.weight_norm(nn.Conv1d(3, 4, 2))
    return nn.Sequential(old, nn.Tanh(), parametrizations.weight_norm(nn.Linear(4, 2))), (normal(n, 3, 5),)


@case()
def spectral_norm(n: int) -> tuple[nn.Module, Inputs]:
    old = nn.utils.spectral_norm(nn.Linear(4, 5))
    return nn.Sequential(old, nn.Tanh(), parametrizations.spectral_norm(nn.Linear(5, 2))), (normal(n, 4),)


@case()
def orthogonal_weight(n: int) -> tuple[nn.Module, Inputs]:
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 2)), (
        normal(n, 4),
    )


class StandardisedConv(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        var = self.weight.var((1, 2, 3), keepdim=True, unbiased=False)
        return self._conv_forward(x, (self.weight - mean) * torch.rsqrt(var + 1e-5), self.bias)


class ForcedLinear(nn.Linear):
    """A weight normalised a row, forced there in train mode as in EDM2 (Karras et al. 2024), with a gain."""

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.weight.copy_(functional.normalize(self.weight, dim=1))
        weight = functional.normalize(self.weight.to(torch.float32).to(x.dtype), dim=1)
        return functional.linear(x, weight * (gain / self.in_features**0.5))


@case()
def standardised_weight(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(StandardisedConv(2, 3, 3, padding=1), nn.SiLU(), StandardisedConv(3, 2, 2))
    return net, (normal(n, 2, 4, 4),)


@case(unused=("*.bias",))
def forced_weight(n: int) -> tuple[nn.Module, Inputs]:
    net = Net(
        lambda m, x: m.b(m.a(x, torch.ones(()).to(x.device)).tanh(), m.gain),
        a=ForcedLinear(4, 5),
        b=ForcedLinear(5, 2),
        gain=normal(),
    )
    return net, (normal(n, 3, 4),)


@case()
def low_rank_update(n: int) -> tuple[nn.Module, Inputs]:
    """W + B A, once with W frozen."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = functional.linear(x, m.w + m.b @ m.a, m.bias).tanh()
        return functional.linear(y, m.frozen.weight + 0.5 * (m.d @ m.c), m.frozen.bias)

    net = Net(
        forward, w=normal(4, 4), a=normal(2, 4), b=normal(4, 2), bias=normal(4), c=normal(1, 4), d=normal(3, 1),
        frozen=nn.Linear(4, 3)
    )  # fmt: skip
    net.frozen.requires_grad_(False)
    return net, (normal(n, 3, 4),)


@case()
def gathered_weight(n: int) -> tuple[nn.Module, Inputs]:
    """A layer whose weight is stacked, concatenated and permuted from several parameters."""

    def forward(m: Net, x: Tensor) -> Tensor:
        weight = torch.cat([torch.stack([m.a, m.b]), m.c])
        order = torch.tensor([2, 0, 1, 0], device=x.device)
        return functional.linear(x, weight[order]) * sum(m.gains).softmax(0)

    net = Net(
        forward, a=normal(4), b=normal(4), c=normal(1, 4), gains=nn.ParameterList([normal(4), normal(4)])
    )
    return net, (normal(n, 3, 4),)


@case(exact=("spectrum",))
def complex_weight(n: int) -> tuple[nn.Module, Inputs]:
    """A Fourier layer: the parameter is viewed as complex numbers."""

    def forward(m: Net, x: Tensor) -> Tensor:
        modes = torch.fft.rfft(x) * torch.view_as_complex(m.spectrum)
        return m.out(torch.fft.irfft(modes, n=6))

    return Net(forward, spectrum=normal(4, 2), out=nn.Linear(6, 2)), (normal(n, 3, 6),)


@case()
def copied_network(n: int) -> tuple[nn.Module, Inputs]:
    """A frozen copy beside the network, as an exponential average would be."""
    live = nn.Linear(4, 3)
    still = copy.deepcopy(live).requires_grad_(False)
    return Net(lambda m, x: m.live(x).tanh() - m.still(x), live=live, still=still), (normal(n, 4),)
