"""Affine parameters of normalisations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.case import Inputs, Net, case, normal


@case()
def norm_layer(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(
        nn.LayerNorm(4), nn.Tanh(), nn.LayerNorm((3, 4)), nn.Tanh(), nn.LayerNorm(4, bias=False)
    )
    return net, (normal(n, 3, 4),)


@case()
def norm_layer_sequence_first(n: int) -> tuple[nn.Module, Inputs]:
    net = Net(lambda m, x: m.norm(x.transpose(0, 1)).tanh().transpose(0, 1), norm=nn.LayerNorm(4))
    return net, (normal(n, 3, 4),)


@case()
def norm_rms(n: int) -> tuple[nn.Module, Inputs]:
    return nn.Sequential(nn.RMSNorm(4), nn.Tanh(), nn.RMSNorm((3, 4), eps=1e-3)), (normal(n, 3, 4),)


@case()
def norm_group(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.GroupNorm(4, 16))
    return net, (normal(n, 4, 2, 2),)


@case()
def norm_instance(n: int) -> tuple[nn.Module, Inputs]:
    tracking = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
    tracking.running_mean, tracking.running_var = normal(3), torch.rand(3) + 0.5
    net = nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.SiLU(), nn.Flatten(2), tracking)
    return net, (normal(n, 3, 3, 2),)


@case()
def norm_batch(n: int) -> tuple[nn.Module, Inputs]:
    flat, image = nn.BatchNorm1d(12), nn.BatchNorm2d(3)
    for layer in (flat, image):
        layer.running_mean, layer.running_var = torch.randn_like(layer.running_mean), layer.running_var + 0.3
    return nn.Sequential(image, nn.SiLU(), nn.Flatten(), flat), (normal(n, 3, 2, 2),)


@case()
def norm_functions(n: int) -> tuple[nn.Module, Inputs]:
    """torch's own functions, some of which take their arguments in another order than torch.nn.functional's."""

    def forward(m: Net, x: Tensor) -> Tensor:
        mean, var = torch.tensor([0.1, -0.2, 0.3]).to(x), torch.tensor([1.0, 0.5, 2.0]).to(x)
        y = torch.batch_norm(x, m.a, m.b, mean, var, False, 0.1, 1e-5, False).sin()
        y = torch.instance_norm(y, m.c, m.d, None, None, True, 0.1, 1e-5, False)
        y = torch.group_norm(y, 1, m.a, m.d).sin()
        y = torch.rms_norm(torch.layer_norm(y, (2, 2), m.e, m.f), (2,), m.g)
        return functional.batch_norm(y, mean, var, weight=m.c, bias=m.b)

    parts = {name: normal(3) for name in "abcd"} | {"e": normal(2, 2), "f": normal(2, 2), "g": normal(2)}
    return Net(forward, **parts), (normal(n, 3, 2, 2),)


@case()
def norm_written_out(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return scaled * (1 + m.gain) + m.bias

    return Net(forward, gain=normal(4), bias=normal(4)), (normal(n, 3, 4),)
