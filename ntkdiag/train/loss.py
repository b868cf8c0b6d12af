"""The denoising loss of every sample, so that it can be weighted and averaged by noise level."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ntkdiag.denoiser import Denoiser
from ntkdiag.process.log_snr import level_like
from ntkdiag.process.points import Points
from ntkdiag.process.schedules.base import Schedule


class Batch(NamedTuple):
    """The samples of one training step: data [N, *shape], noise [N, *shape] and log-SNR [N]."""

    x0: Tensor
    epsilon: Tensor
    log_snr: Tensor


class Generators(NamedTuple):
    """A random generator each for data, noise and log-SNR, so that one can change while the others stay."""

    data: torch.Generator
    noise: torch.Generator
    level: torch.Generator


def draw_batch(train: Points, schedule: Schedule, count: int, generators: Generators) -> Batch:
    """Draw a training batch, with replacement, on the device of the data and the generators.

    Args:
        train: Training samples [M, *shape].
        schedule: Its density is the distribution of the log-SNR.
        count: Samples to draw, N.
        generators: Random generators of data, noise and log-SNR.
    """
    device = train.device
    index = torch.randint(len(train), (count,), generator=generators.data, device=device)
    x0 = train[index]
    epsilon = torch.randn(x0.shape, generator=generators.noise, device=device, dtype=x0.dtype)
    return Batch(x0, epsilon, level_like(schedule.sample(count, generators.level), x0))


def denoising_losses(denoiser: Denoiser, batch: Batch, cond: Any = None) -> Tensor:
    """Squared error of the denoiser's target, averaged over the dimensions of each sample.

    Args:
        denoiser: Network, schedule and target.
        batch: Data, noise and log-SNR.
        cond: Conditioning that is passed to the network, or None.

    Returns:
        Unweighted losses [N], ≥ 0.
    """
    x0, epsilon, log_snr = batch
    x, wanted = denoiser.training_pair(x0, epsilon, log_snr)
    losses: Tensor = (denoiser(x, log_snr, cond) - wanted).square().flatten(1).mean(dim=1)
    return losses
