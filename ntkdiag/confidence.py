"""Confidence intervals from standard errors: the one place that takes quantiles of Student's t and of the normal.

Which standard error, and what the interval covers, is the business of the callers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ntkdiag.errors import require_number


@dataclass(frozen=True)
class Interval:
    """A value with its uncertainty.

    Attributes:
        value: The estimate, from all samples.
        low, high: Ends of the interval; NaN where none can be given.
        stderr: Standard error in units of the value; NaN with the ends.
        level: Nominal coverage in (0, 1).
        method: How it was made, in words.

    Example:
        >>> found = nd.spectra.mean_interval(np.array([1.0, 2.0, 3.0]), scale="linear")
        >>> found.value, found.level
        (2.0, 0.9)
    """

    value: float
    low: float
    high: float
    stderr: float
    level: float
    method: str


def require_level(level: float) -> float:
    """Return the level if it is a number in (0, 1).

    Raises:
        InputError: otherwise.
    """
    return require_number("level", level, above=0, below=1)


def quantile(level: float, freedom: float = math.inf) -> float:
    """How many standard errors a two-sided interval reaches to each side.

    Args:
        level: Nominal coverage in (0, 1).
        freedom: Degrees of freedom of Student's t; infinite for the normal distribution.

    Raises:
        InputError: a level out of range.

    Example:
        >>> round(quantile(0.95), 2), round(quantile(0.95, freedom=9), 2)
        (1.96, 2.26)
    """
    upper = (1 + require_level(level)) / 2
    return float(special.ndtri(upper) if math.isinf(freedom) else special.stdtrit(freedom, upper))


def freedom(count: int, excess: float) -> float:
    """Degrees of freedom of a variance that is estimated from independent values: 2/Var(s²/σ²), at least 2.

    With fewer than 2 an interval would mostly follow one value; with 2 it reaches 1.8 times as far as a normal one at 90%.

    Args:
        count: Number of values.
        excess: Their excess kurtosis; 0 for normal values, which have count − 1 degrees of freedom.
    """
    return max(2 * (count - 1) / (excess + 2), 2.0)


def symmetric(value: float, stderr: float, freedom: float, level: float, method: str) -> Interval:
    """value ± quantile · stderr."""
    reach = quantile(level, freedom) * stderr
    return Interval(value, value - reach, value + reach, stderr, level, method)


def from_influence(value: float, influence: NDArray[np.float64], level: float, method: str) -> Interval:
    """Interval of a positive estimate, symmetric in its logarithm, by the delta method.

    Args:
        value: The estimate, > 0.
        influence: First-order influence of each independent sample (or random vector) on ln value, [n], n ≥ 2.
        level: Nominal coverage in (0, 1).
        method: How it was made, in words.
    """
    error = float(influence.std(ddof=1)) / math.sqrt(len(influence))
    reach = quantile(level, len(influence) - 1) * error
    return Interval(value, value * math.exp(-reach), value * math.exp(reach), value * error, level, method)
