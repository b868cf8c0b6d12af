"""How well outputs fit a meaning y = c_x x0 + c_ε ε, in one currency for all meanings.

Given the noisy x, an output that is taken for y says an x0, whose error is the output's error over the gain
k = c_x − c_ε α/σ. It is divided by that of the best multiple of x, v/(1 + SNR v) for data of variance v, so that 1 is what a
network can do that knows nothing of the data but its variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ntkdiag.confidence import quantile

# Smallest error that is told from none.
_TINY = 1e-30


@dataclass(frozen=True)
class Errors:
    """Errors of a network under one reading.

    Attributes:
        values: Error of x0 over that of the best multiple of x, [B, N].
        direct: Error of the output itself over the variance of y, [B, N]: 1 for an output that is the mean of y.
    """

    values: Tensor
    direct: Tensor

    @property
    def overall(self) -> float:
        """Geometric mean over levels of the mean over samples."""
        return float(self.values.mean(1).clamp(min=_TINY).log().mean().exp())

    @property
    def worst(self) -> float:
        """The largest of the levels."""
        return float(self.values.mean(1).max())

    def explained(self, miss: float) -> float:
        """Largest lower limit over the levels of the share of Var(y) that the output explains."""
        reach = _quantile(self.direct.shape[1], miss / len(self.direct))
        spread = self.direct.std(1) / math.sqrt(self.direct.shape[1])
        return float((1 - self.direct.mean(1) - reach * spread).max())


def errors(
    output: Tensor,
    meaning: tuple[Tensor, Tensor],
    snr: Tensor,
    x0: Tensor,
    epsilon: Tensor,
    variance: Tensor | None = None,
) -> Errors:
    """Errors of outputs under a meaning.

    Args:
        output: [B, N, D] float64.
        meaning: (c_x, c_ε), [B] each.
        snr: α²/σ², [B].
        x0, epsilon: [N, D] float64.
        variance: Of the data; that of x0 if None.
    """
    c_x, c_epsilon = meaning
    wanted = c_x[:, None, None] * x0 + c_epsilon[:, None, None] * epsilon
    squared = (output - wanted).square().mean(2)
    if variance is None:
        variance = (x0 - x0.mean(0)).square().mean()
    variance = variance.clamp(min=_TINY)
    gain = (c_x - c_epsilon * snr.sqrt()).square()
    linear = variance / (1 + snr * variance)
    about_mean = c_x.square() * variance + c_epsilon.square()
    return Errors(squared / (gain * linear)[:, None], squared / about_mean[:, None])


def log_ratio(larger: Errors, smaller: Errors, miss: float) -> tuple[float, float]:
    """Mean over levels of ln(error of one / error of the other), and its lower limit.

    By the delta method on paired samples, Student's t: a sample's influence on ln of a mean is its value over that mean.

    Args:
        larger, smaller: On the same draws.
        miss: Probability of a limit above the truth.

    Returns:
        Estimate and one-sided lower limit.
    """
    one, other = (each.values.mean(1).clamp(min=_TINY) for each in (larger, smaller))
    estimate = float((one.log() - other.log()).mean())
    influence = (larger.values / one[:, None] - smaller.values / other[:, None]).mean(0)
    spread = float(influence.std()) / math.sqrt(len(influence)) if len(influence) > 1 else 0.0
    return estimate, estimate - _quantile(len(influence), miss) * spread


def _quantile(count: int, miss: float) -> float:
    """Student's t with one-sided probability `miss`; infinite for one sample."""
    return quantile(1 - 2 * miss, count - 1) if count > 1 else math.inf
