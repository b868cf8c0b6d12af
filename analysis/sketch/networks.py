"""The six small networks on which the estimate is checked: each with another kind of layer that is sketched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import ntkdiag as nd
from analysis.peers.unet import UNet

Inputs = tuple[Tensor, ...]
Network = tuple[nn.Module, Inputs]


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder, turned."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 16) / 4)
        self.middle = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 16] → the same."""
        code = torch.tanh(self.middle(torch.tanh(functional.linear(x, self.weight))))
        return functional.linear(code, self.weight.T)


class Words(nn.Module):
    """A table of words and one of positions, then two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 24)
        self.positions = nn.Parameter(torch.randn(1, 12, 24) / 4)
        self.layers = nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 8))

    def forward(self, index: Tensor) -> Tensor:
        """[N, 12] integers → [N, 12, 8]."""
        return self.layers(self.words(index) + self.positions)


def _mlp(samples: int) -> Network:
    module = nd.models.build("mlp", (12,), seed=1, width=48, depth=2)
    return module, (torch.randn(samples, 12), torch.linspace(-4, 4, samples))


def _dit(samples: int) -> Network:
    module = nd.models.build("dit", (1, 8, 8), seed=1, patch=2, width=32, depth=2, heads=2)
    return module, (torch.randn(samples, 1, 8, 8), torch.linspace(-4, 4, samples))


def _unet(samples: int) -> Network:
    return UNet(1, 8, 4), (torch.randn(samples, 1, 8, 8), torch.linspace(-4, 4, samples))


def _convolutions(samples: int) -> Network:
    parts = [nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 32, 3, stride=2), nn.SiLU()]
    return nn.Sequential(*parts, nn.ConvTranspose2d(32, 3, 4, stride=2)), (torch.randn(samples, 3, 8, 8),)


def tied(samples: int) -> Network:
    """A weight that is used twice."""
    return Tied(), (torch.randn(samples, 6, 16),)


def words(samples: int) -> Network:
    """Tables of embeddings."""
    return Words(), (torch.randint(0, 40, (samples, 12)),)


_NETWORKS: dict[str, Callable[[int], Network]] = {
    "mlp": _mlp,
    "dit": _dit,
    "unet": _unet,
    "convolutions": _convolutions,
    "tied": tied,
    "embeddings": words,
}
NAMES = tuple(_NETWORKS)


def build(name: str, samples: int) -> Network:
    """A network in float64 in eval mode, and its inputs; always the same."""
    module, inputs = moved(_NETWORKS[name], samples, 0.1)
    wide = tuple(t.double() if t.is_floating_point() else t for t in inputs)
    return module.double(), wide


def moved(make: Callable[[int], Network], samples: int, by: float) -> Network:
    """A network in eval mode, moved at random off the zeros that some begin with, and its inputs; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, inputs = make(samples)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(by * torch.randn_like(parameter))
    return module.eval(), inputs
