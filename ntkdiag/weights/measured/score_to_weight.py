"""ScoreToWeight: from the amplitude of a score to a weight, by a power, a floor and a cap."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ntkdiag.errors import InputError, require_number


@dataclass(frozen=True)
class ScoreToWeight:
    """weight = amplitude^power as a multiple of its mean over buckets, kept between floor and cap.

    Attributes:
        power: ≥ 0; 0 gives constant weights, 1 the scale of ERD. The amplitude of a share of variance or energy is
            √share, so that power 2 gives weights proportional to the share.
        floor: In [0, 1]: the smallest multiple of the mean, so that one measurement cannot drop a noise
            level from training.
        cap: ≥ 1, the largest multiple of the mean, or None.

    Raises:
        InputError: a value out of range.
    """

    power: float = 1.0
    floor: float = 0.05
    cap: float | None = None

    def __post_init__(self) -> None:
        require_number("power", self.power, at_least=0.0)
        require_number("floor", self.floor, at_least=0.0, at_most=1.0)
        if self.cap is not None:
            require_number("cap", self.cap, at_least=1.0)

    def mean(self, amplitude: Tensor) -> float:
        """Mean of amplitude^power over buckets.

        Raises:
            InputError: zero in every bucket.
        """
        mean = (amplitude**self.power).mean().item()
        if not 0 < mean < math.inf:
            raise InputError(
                "score", expected="a positive value in at least one bucket", got=f"a mean of {mean}"
            )
        return mean

    def relative(self, amplitude: Tensor, mean: float) -> Tensor:
        """Multiples of the mean, before floor and cap."""
        return amplitude**self.power / mean

    def interval(self, value: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Limits of the multiples of the mean, by the delta method with buckets that err independently.

        The mean is estimated too: an error of one bucket moves the weights of all. Buckets that share their samples err
        together, which moves the mean along with them, so that the limits are too wide rather than too narrow.

        Args:
            value, low, high: Amplitudes and the ends of their intervals, [B].

        Returns:
            Lower and upper limits [B], between floor and cap.
        """
        mean, count = self.mean(value), len(value)
        power, below, above = (part**self.power for part in (value, low, high))
        own = power / mean
        share = own / count
        down, up = ((power - below) / mean).clamp(min=0), ((above - power) / mean).clamp(min=0)

        def reach(this: Tensor, others: Tensor) -> Tensor:
            """Size of the error: its own part, and that of the mean over the other buckets."""
            rest = (others.square().sum() - others.square()) * share.square()
            return (((1 - share) * this).square() + rest).sqrt()

        limits = (own - reach(down, up)).clamp(min=0), own + reach(up, down)
        low_end, high_end = (limit.clamp(self.floor, self._most) for limit in limits)
        return low_end, high_end

    @property
    def _most(self) -> float:
        return math.inf if self.cap is None else self.cap

    def weight(self, amplitude: Tensor, mean: float) -> Tensor:
        """Weights for amplitudes ≥ 0 of any shape, given `mean` of them all."""
        return self.relative(amplitude, mean).clamp(self.floor, self._most)
