"""The exponential moving average of a network's weights, which is what samples are drawn from."""

from __future__ import annotations

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ntkdiag.denoiser import Denoiser


class Average:
    """A copy of a denoiser that follows it slowly.

    Args:
        live: The denoiser that is trained; its parameters must stay the same tensors.
        decay: Share of the average kept at a step, in [0, 1), once the ramp is over.
    """

    def __init__(self, live: Denoiser, decay: float) -> None:
        self.denoiser = copy.deepcopy(live)
        self.decay = decay
        self._parameters = list(self.denoiser.parameters()), list(live.parameters())
        self._buffers = list(zip(self.denoiser.buffers(), live.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move every parameter towards the live one, and copy the buffers.

        Args:
            step: Steps done before this one.
        """
        get_ema_multi_avg_fn(average_decay(step, self.decay))(*self._parameters, 0)
        for kept, current in self._buffers:
            kept.copy_(current)


def average_decay(step: int, decay: float) -> float:
    """Decay at a step, min(decay, (1 + step) / (10 + step)).

    The ramp lets the average forget the initial weights; it is that of TensorFlow's
    `ExponentialMovingAverage(num_updates=step)`.

    Args:
        step: Steps done before this one.
        decay: The limit, in [0, 1).
    """
    return min(decay, (1 + step) / (10 + step))
