"""An outside check: the participation ratio of a ResNet-20's kernel at initialisation, up to ten thousand images.

arXiv 2512.00860 reports 1.0 to 1.3 at every N on CIFAR-10. Here the images are Fashion-MNIST's, padded to 32×32 and repeated
over three channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import ntkdiag as nd
from analysis.sketch.cost import processor_seconds
from analysis.sketch.many import images
from ntkdiag.spectra import participation_ratio, participation_ratio_pairs

CLASSES = 10
# Images whose statistics the batch norms are given.
NORMALISED_BY = 1000


class Block(nn.Module):
    """Two convolutions and a shortcut, which drops every other pixel and pads channels with zeros where sizes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, side, side] → [N, outputs, side/stride, side/stride]."""
        inside = self.norms[1](self.second(self.norms[0](self.first(x)).relu()))
        kept = x[:, :, :: self.stride, :: self.stride]
        return (inside + functional.pad(kept, (0, 0, 0, 0, 0, self.added))).relu()


def network(width: int, blocks: int) -> nn.Module:
    """Stages of `blocks` blocks with 1, 2 and 4 times `width` channels; 3 blocks make a ResNet-20. He's initialisation."""
    sizes = [width] * blocks + [2 * width] * blocks + [4 * width] * blocks
    first = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    body = [Block(p, q, 1 if p == q else 2) for p, q in zip([width, *sizes], sizes, strict=False)]
    net = nn.Sequential(*first, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, CLASSES))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return net


def inputs(config: dict[str, Any]) -> Tensor:
    """[largest N, 3, side, side], of mean 0 and variance 1."""
    x = images(config["data"]).train[: max(config["curve"])]
    pad = (config["side"] - x.shape[-1]) // 2
    x = functional.pad((x - x.mean()) / x.std(), (pad,) * 4).expand(-1, 3, -1, -1)
    return x.contiguous()


def participation(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per N and kind of batch norm: (tr K)²/‖K‖² of the kernel of the logits.

    A batch norm in eval mode either normalises by statistics of images, or, as it is made, not at all.
    """
    x, rows = inputs(config), []
    for normalised in (True, False):
        torch.manual_seed(0)
        module = network(config["width"], config["blocks"])
        if normalised:
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.momentum = None  # the average over the batches that it sees
            module.train()(x[:NORMALISED_BY])
        module.eval()
        generator = torch.Generator().manual_seed(0)
        probes = torch.randint(0, 2, (config["probes"], CLASSES), generator=generator).float() * 2 - 1
        found: list[Tensor] = []

        def measure(module: nn.Module = module, probes: Tensor = probes, found: list[Tensor] = found) -> None:
            found.append(nd.gram_of(module, (x,), probes, engine="sketch", sketch=config["k"]))

        seconds = processor_seconds(measure)
        for count in config["curve"]:
            each = found[0][:, :count, :count]
            rows.append(
                {
                    "batch_norm": "normalises" if normalised else "as it is made",
                    "N": count,
                    "participation_ratio": float(participation_ratio(each.mean(0))),
                    "participation_ratio_pairs": float(
                        participation_ratio_pairs(each.mean(0), per_probe=each)
                    ),
                    "processor_seconds_of_all": seconds,
                }
            )
    return rows
