"""Small networks that are trained in a second, on any path, target, time and sign, for the load check to read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag import data as datasets
from ntkdiag.process.log_snr import expand
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import coefficients

OfLevel = Callable[[Tensor], Tensor]


@cache
def pictures() -> Tensor:
    """Training digits, [N, 1, 8, 8]."""
    train = datasets.load("digits").train
    assert isinstance(train, Tensor)
    return train.float().reshape(-1, 1, 8, 8)


def embedding(time: Tensor, largest: float, width: int = 32) -> Tensor:
    """Sines and cosines of time, with frequencies for times up to `largest`; [N, width]."""
    rates = torch.exp(torch.linspace(0, 5, width // 2, dtype=time.dtype)) / largest
    angles = time[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeMLP(nn.Module):
    """network(x, time) on x [N, 1, 8, 8], a hidden layer scaled by time and a gate on x; time in units of `largest`."""

    def __init__(self, largest: float = 1.0, size: int = 64, width: int = 192, seed: int = 0) -> None:
        super().__init__()
        self.largest = largest
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inner, self.middle = nn.Linear(size, width), nn.Linear(width, width)
            self.outer, self.time = nn.Linear(width, size), nn.Linear(32, 4 * width + 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        modulation = self.time(embedding(time.to(x.dtype), self.largest))
        a, b, c, d = modulation[:, :-1].chunk(4, dim=1)
        flat = x.flatten(1)
        hidden = nn.functional.silu(self.inner(flat) * (1 + a) + b)
        hidden = nn.functional.silu(self.middle(hidden) * (1 + c) + d)
        return (self.outer(hidden) + modulation[:, -1:] * flat).reshape(x.shape)


def train(
    network: nn.Module,
    schedule: Schedule,
    target: Callable[[Tensor, Tensor, Tensor], Tensor],
    predict: Callable[[Tensor, Tensor], Tensor],
    steps: int = 300,
    seed: int = 0,
    batch: int = 256,
) -> None:
    """Train `predict(x, log_snr)`, which calls the network, on `target(x0, ε, log_snr)`."""
    generator = torch.Generator().manual_seed(seed)
    samples = pictures()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        x0 = samples[torch.randint(len(samples), (batch,), generator=generator)]
        epsilon = torch.randn(x0.shape, generator=generator)
        log_snr = schedule.sample(batch, generator).float().clamp(-14, 14)
        x = schedule.diffuse(x0, epsilon, log_snr)
        loss = (predict(x, log_snr) - target(x0, epsilon, log_snr)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@cache
def trained(
    schedule: Schedule,
    target: str,
    time: OfLevel,
    largest: float = 1.0,
    sign: float = 1.0,
    scale: OfLevel | None = None,
    seed: int = 0,
    steps: int = 300,
) -> TimeMLP:
    """A network that predicts sign · target from scale · x and a time."""
    network = TimeMLP(largest, seed=seed)

    def wanted(x0: Tensor, epsilon: Tensor, log_snr: Tensor) -> Tensor:
        c_x, c_epsilon = coefficients(target, schedule, log_snr)
        return sign * (expand(c_x, x0) * x0 + expand(c_epsilon, x0) * epsilon)

    def predict(x: Tensor, log_snr: Tensor) -> Tensor:
        scaled: Any = x if scale is None else x * expand(scale(log_snr), x)
        return network(scaled, time(log_snr))

    train(network, schedule, wanted, predict, steps, seed)
    return network
