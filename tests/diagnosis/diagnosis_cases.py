"""Small networks and measurements that the diagnosis tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag import models
from ntkdiag.data import Data, mixture
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import Diagnosis, measure
from ntkdiag.process import schedules
from ntkdiag.process.buckets import Buckets

BUCKETS = Buckets.uniform(-6, 6, count=3)
POINTS = mixture(train=256, held_out=16)


def mlp(target: str = "v", seed: int = 0, schedule: Any = None) -> Denoiser:
    network = models.build("mlp", (2,), seed=seed, width=8, depth=1, frequencies=2)
    return Denoiser(network, schedule or schedules.cosine(), target, call="log_snr")


def small(**change: Any) -> Diagnosis:
    """A measurement in well under a second."""
    settings = {"samples": 8, "probes": 1, "refs": {"untrained": mlp(seed=1)}} | change
    return measure(mlp(), POINTS, BUCKETS, **settings)


def vectors(size: int = 6, count: int = 64, seed: int = 0) -> Data:
    """Correlated Gaussian vectors in float64, no oracle."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    samples = torch.randn(count + 8, size, generator=generator, dtype=torch.float64) @ mixing
    return Data("vectors", samples[8:], samples[:8])


def linear(size: int = 6, target: str = "x0") -> Denoiser:
    """f = W x + b, which takes no notice of the noise level."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(size, size).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)

    def call(network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        return network(x)

    return Denoiser(layer, schedules.cosine(), target, call=call)
