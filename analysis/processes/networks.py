"""The networks that processes measure together: the kinds of layers whose gradients they exchange in different forms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import ntkdiag as nd
from analysis.peers.unet import UNet
from analysis.sketch.networks import Tied, Words

Network = tuple[nn.Module, tuple[Tensor, ...]]


def _mlp(samples: int) -> Network:
    module = nd.models.build("mlp", (64,), seed=1, width=512, depth=4)
    return module, (torch.randn(samples, 64), torch.linspace(-4, 4, samples))


def _dit(samples: int) -> Network:
    module = nd.models.build("dit", (1, 16, 16), seed=1, patch=2, width=256, depth=4, heads=4)
    return module, (torch.randn(samples, 1, 16, 16), torch.linspace(-4, 4, samples))


def _unet(samples: int) -> Network:
    return UNet(1, 32, 4), (torch.randn(samples, 1, 16, 16), torch.linspace(-4, 4, samples))


def _tied(samples: int) -> Network:
    return Tied(), (torch.randn(samples, 6, 16),)


def _words(samples: int) -> Network:
    return Words(), (torch.randint(0, 40, (samples, 12)),)


_NETWORKS: dict[str, Callable[[int], Network]] = {
    "mlp": _mlp,
    "dit": _dit,
    "unet": _unet,
    "tied": _tied,
    "words": _words,
}
NAMES = tuple(_NETWORKS)


def build(name: str, samples: int) -> Network:
    """A network in float32 in eval mode, moved off the zeros that some begin with, and its inputs; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, inputs = _NETWORKS[name](samples)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return module.eval(), inputs
