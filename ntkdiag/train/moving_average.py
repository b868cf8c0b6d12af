"""The exponential moving average of a network's weights; samples are drawn from the averaged network."""

from __future__ import annotations

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ntkdiag.denoiser import Denoiser
from ntkdiag.train.network_state import copied, held_tensors, hold


class Average:
    """A copy of a denoiser whose weights are the moving average of the trained ones, with the buffers as they are now.

    Args:
        live: The denoiser that is trained; its parameters must remain the same tensors.
        decay: Factor of the average in each step, in [0, 1); smaller in the first steps, see `average_decay`.
    """

    def __init__(self, live: Denoiser, decay: float) -> None:
        self.denoiser = copied(live)
        self.decay = decay
        self._live = live
        self._parameters = list(self.denoiser.parameters()), list(live.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move every parameter towards the trained one, and take over the buffers.

        Args:
            step: Steps done before this one.
        """
        get_ema_multi_avg_fn(average_decay(step, self.decay))(*self._parameters, 0)
        self.take_over_buffers()

    def take_over_buffers(self) -> None:
        """Give the average what the trained network holds besides parameters: buffers, plain tensors."""
        hold(self.denoiser, held_tensors(self._live))


def average_decay(step: int, decay: float) -> float:
    """Decay in a step, min(decay, (1 + step) / (10 + step)).

    The smaller decay of the first steps makes the average forget the initial weights, as in TensorFlow's
    `ExponentialMovingAverage(num_updates=step)`.

    Args:
        step: Steps done before this one.
        decay: The limit, in [0, 1).
    """
    return min(decay, (1 + step) / (10 + step))
