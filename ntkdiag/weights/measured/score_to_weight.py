"""From amplitudes to weights: a power, a floor and a cap, shared by one-off and repeated measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ntkdiag.errors import InputError


@dataclass(frozen=True)
class ScoreToWeight:
    """weight = amplitude^power as a multiple of its mean over buckets, kept between floor and cap.

    Attributes:
        power: ≥ 0; 0 gives constant weights, 1 the scale of ERD.
        floor: In [0, 1]: the least multiple of the mean, so that no noise level is given up on the
            word of one measurement.
        cap: ≥ 1, the largest multiple of the mean, or None.

    Raises:
        InputError: a value out of range.
    """

    power: float = 1.0
    floor: float = 0.05
    cap: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.power < math.inf:
            raise InputError("power", expected="a finite number of at least 0", got=self.power)
        if not 0 <= self.floor <= 1:
            raise InputError("floor", expected="a number from 0 to 1", got=self.floor)
        if self.cap is not None and not self.cap >= 1:
            raise InputError("cap", expected="a number of at least 1, or None", got=self.cap)

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

    def weight(self, amplitude: Tensor, mean: float) -> Tensor:
        """Weights for amplitudes ≥ 0 of any shape, given `mean` of them all."""
        return self.relative(amplitude, mean).clamp(self.floor, math.inf if self.cap is None else self.cap)
