"""Convolutions: every option of the forward and transposed kinds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.case import Inputs, Net, case, normal


@case()
def conv_1d(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(
        nn.Conv1d(3, 4, 3, stride=2, padding=1), nn.SiLU(), nn.Conv1d(4, 4, 2, dilation=3, bias=False), nn.SiLU(),
        nn.Conv1d(4, 2, 4, padding="same"),
    )  # fmt: skip
    return net, (normal(n, 3, 11),)


@case()
def conv_2d(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=(2, 1), padding=(0, 2)), nn.SiLU(), nn.Conv2d(4, 6, (2, 3), groups=2), nn.SiLU(),
        nn.Conv2d(6, 6, 3, padding="same", dilation=2, groups=6), nn.SiLU(), nn.Conv2d(6, 3, 1, padding="valid"),
    )  # fmt: skip
    return net, (normal(n, 2, 7, 6),)


@case()
def conv_3d(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(
        nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), nn.SiLU(), nn.Conv3d(3, 2, 2, stride=2)
    )
    return net, (normal(n, 2, 3, 4, 4),)


@case()
def conv_padding_modes(n: int) -> tuple[nn.Module, Inputs]:
    modes = ("circular", "reflect", "replicate")
    layers = [nn.Conv2d(2, 2, 3, padding=1, padding_mode=mode) for mode in modes]
    same = nn.Conv2d(2, 2, (2, 3), padding="same", padding_mode="circular")
    return nn.Sequential(*layers, nn.Tanh(), same), (normal(n, 2, 4, 5),)


@case()
def conv_function(n: int) -> tuple[nn.Module, Inputs]:
    """A custom layer that scales its weight and names its arguments, and one padded by a string."""

    def forward(m: Net, x: Tensor) -> Tensor:
        hidden = functional.conv2d(x, m.w * 0.5, bias=m.b, stride=[2, 2], padding=[1]).sin()
        return torch.conv2d(hidden, m.v, padding="same")

    return Net(forward, w=normal(3, 2, 3, 3), b=normal(3), v=normal(2, 3, 4, 1)), (normal(n, 2, 5, 5),)


@case()
def conv_transposed_1d(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(
        nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1), nn.SiLU(),
        nn.ConvTranspose1d(4, 4, 2, groups=2, dilation=2, bias=False),
    )  # fmt: skip
    return net, (normal(n, 2, 5),)


@case()
def conv_transposed_2d(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(
        nn.ConvTranspose2d(2, 4, (2, 3), stride=(2, 1), padding=(1, 0)), nn.SiLU(),
        nn.ConvTranspose2d(4, 2, 3, stride=3, output_padding=2, groups=2, padding=1),
    )  # fmt: skip
    return net, (normal(n, 2, 3, 3),)


@case()
def conv_transposed_3d(n: int) -> tuple[nn.Module, Inputs]:
    net = nn.Sequential(
        nn.ConvTranspose3d(2, 3, 2, stride=2), nn.SiLU(), nn.ConvTranspose3d(3, 1, (1, 2, 3), padding=1)
    )
    return net, (normal(n, 2, 2, 2, 2),)


@case()
def conv_channels_last(n: int) -> tuple[nn.Module, Inputs]:
    """Weights and activations in channels-last memory."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 2, 2, stride=2)
    )
    net = net.to(memory_format=torch.channels_last)
    return net, (normal(n, 3, 6, 6).contiguous(memory_format=torch.channels_last),)


@case()
def conv_over_frames(n: int) -> tuple[nn.Module, Inputs]:
    """Frames of a video folded into the batch, first sample-major, then sample-minor."""

    def forward(m: Net, x: Tensor) -> Tensor:
        count, frames = x.shape[:2]
        hidden = m.first(x.flatten(0, 1)).tanh().unflatten(0, (count, frames))
        hidden = m.second(hidden.transpose(0, 1).flatten(0, 1))
        return hidden.unflatten(0, (frames, count)).transpose(0, 1)

    net = Net(forward, first=nn.Conv2d(2, 3, 3, padding=1), second=nn.Conv2d(3, 2, 2))
    return net, (normal(n, 2, 2, 4, 3),)
