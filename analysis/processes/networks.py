"""The networks that processes measure together: the kinds of layers whose gradients they exchange in different forms."""

from __future__ import annotations

from collections.abc import Callable

import torch

import ntkdiag as nd
from analysis.peers.unet import UNet
from analysis.sketch.networks import Network, moved, tied, words


def _mlp(samples: int) -> Network:
    module = nd.models.build("mlp", (64,), seed=1, width=512, depth=4)
    return module, (torch.randn(samples, 64), torch.linspace(-4, 4, samples))


def _dit(samples: int) -> Network:
    module = nd.models.build("dit", (1, 16, 16), seed=1, patch=2, width=256, depth=4, heads=4)
    return module, (torch.randn(samples, 1, 16, 16), torch.linspace(-4, 4, samples))


def _unet(samples: int) -> Network:
    return UNet(1, 32, 4), (torch.randn(samples, 1, 16, 16), torch.linspace(-4, 4, samples))


_NETWORKS: dict[str, Callable[[int], Network]] = {
    "mlp": _mlp,
    "dit": _dit,
    "unet": _unet,
    "tied": tied,
    "words": words,
}
NAMES = tuple(_NETWORKS)


def build(name: str, samples: int) -> Network:
    """A network in float32 in eval mode, and its inputs; always the same."""
    return moved(_NETWORKS[name], samples, 0.05)
