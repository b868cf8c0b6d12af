"""The exponential moving average of a network's weights; samples are drawn from the averaged network."""

from __future__ import annotations

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ntkdiag.denoiser import Denoiser
from ntkdiag.train.network_state import Follower, copied


class Average:
    """A copy of a denoiser whose weights are the moving average of the trained ones, with the buffers as they are now.

    Args:
        live: The denoiser that is trained; its parameters must remain the same tensors.
        decay: Factor of the average in each step, in [0, 1); smaller in the first steps, see `average_decay`.
        width: Relative width of an average by a power of the step in place of that; see `power_decay`.
    """

    def __init__(self, live: Denoiser, decay: float, width: float | None = None) -> None:
        self.denoiser = copied(live)
        self.decay = decay
        self.power = None if width is None else power_of_width(width)
        self._follow = Follower(live, self.denoiser)
        self._parameters = list(self.denoiser.parameters()), list(live.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move every parameter towards the trained one, and take over the buffers.

        Args:
            step: Steps done before this one.
        """
        decay = average_decay(step, self.decay) if self.power is None else power_decay(step, self.power)
        get_ema_multi_avg_fn(decay)(*self._parameters, 0)
        self.take_over_buffers()

    def take_over_buffers(self) -> None:
        """Give the average what the trained network holds besides parameters: buffers, plain tensors."""
        self._follow()


def average_decay(step: int, decay: float) -> float:
    """Decay in a step, min(decay, (1 + step) / (10 + step)).

    The smaller decay of the first steps makes the average forget the initial weights, as in TensorFlow's
    `ExponentialMovingAverage(num_updates=step)`.

    Args:
        step: Steps done before this one.
        decay: The limit, in [0, 1).
    """
    return min(decay, (1 + step) / (10 + step))


def power_decay(step: int, power: float) -> float:
    """Decay in a step of an average whose weights grow with a power of the step: (1 − 1/t)^(γ+1).

    After t steps, step i counts (i^(γ+1) − (i−1)^(γ+1)) / t^(γ+1), so that the average forgets the first steps at any length
    (Karras et al. 2024, arXiv 2312.02696, section 3.1).

    Args:
        step: Steps done before this one, so that t = step + 1.
        power: γ, above −1.
    """
    return float((step / (step + 1)) ** (power + 1))


def power_of_width(width: float) -> float:
    """The power γ of an average of a relative width, σ_rel = √(γ+1) / ((γ+2) √(γ+3)) (appendix C there).

    That is the standard deviation of the step in the average, in units of all steps.

    Args:
        width: σ_rel, above 0 and at most 1/√12, which is that of the plain mean, γ = 0.
    """
    square = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - square, 12.0 - square])
    return max(0.0, float(roots.real.max()))
