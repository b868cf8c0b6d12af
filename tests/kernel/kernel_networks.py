"""Small networks in float64 that the kernel tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ntkdiag import models
from ntkdiag.denoiser import Denoiser
from ntkdiag.process import schedules


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with every parameter moved off whatever special value it started at."""
    network = network.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


def linear(inputs: int = 3, outputs: int = 5) -> nn.Linear:
    return shaken(nn.Linear(inputs, outputs))  # type: ignore[return-value]


def perceptron(inputs: int = 3, outputs: int = 4, width: int = 7) -> nn.Sequential:
    return shaken(nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs)))  # type: ignore[return-value]


class Tied(nn.Module):
    """One weight used twice, and reachable by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 4)
        self.decode = nn.Linear(4, 4)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.encode(x)))


def mlp_denoiser(target: str = "v", shape: tuple[int, ...] = (3, 2), classes: int | None = None) -> Denoiser:
    network = models.build("mlp", shape, seed=1, width=6, depth=2, frequencies=2, classes=classes)
    return Denoiser(shaken(network), schedules.cosine(), target, call="log_snr")


def dit_denoiser(classes: int | None = None) -> Denoiser:
    network = models.build(
        "dit", (1, 4, 4), seed=1, width=8, depth=1, heads=2, mlp_ratio=1, frequencies=2, classes=classes
    )
    return Denoiser(shaken(network), schedules.flow(), "flow", call="log_snr")
