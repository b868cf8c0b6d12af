"""The exponential moving average of a network's weights; samples are drawn from the averaged network."""

from __future__ import annotations

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ntkdiag.denoiser import Denoiser


class Average:
    """A copy of a denoiser whose weights are the moving average of the trained ones.

    Args:
        live: The denoiser that is trained; its parameters must remain the same tensors.
        decay: Factor of the average in each step, in [0, 1); smaller in the first steps, see `average_decay`.
    """

    def __init__(self, live: Denoiser, decay: float) -> None:
        self.denoiser = copy.deepcopy(live)
        self.decay = decay
        self._parameters = list(self.denoiser.parameters()), list(live.parameters())
        self._buffers = list(zip(self.denoiser.buffers(), live.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move every parameter towards the trained one, and copy the buffers.

        Args:
            step: Steps done before this one.
        """
        get_ema_multi_avg_fn(average_decay(step, self.decay))(*self._parameters, 0)
        for kept, current in self._buffers:
            kept.copy_(current)


def average_decay(step: int, decay: float) -> float:
    """Decay in a step, min(decay, (1 + step) / (10 + step)).

    The smaller decay of the first steps makes the average forget the initial weights, as in TensorFlow's
    `ExponentialMovingAverage(num_updates=step)`.

    Args:
        step: Steps done before this one.
        decay: The limit, in [0, 1).
    """
    return min(decay, (1 + step) / (10 + step))
