"""What training did: an effect of the network beside those of fresh networks, measured on the same draws.

The rank of an untrained network follows that of its inputs, so an effect alone does not say that training made it. It is
called learned where it lies outside the interval in which the effect of one more fresh network would lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntkdiag.confidence import quantile

LEARNED, AS_UNTRAINED, NO_CLAIM, NOT_TESTED = "learned", "as untrained", "no claim", "not tested"
# A fresh network lies outside its band in 5% of cases, for each effect by itself.
BAND_LEVEL = 0.95
MIN_CONTROLS = 2


@dataclass(frozen=True)
class ControlBand:
    """An effect beside those of K fresh networks.

    Attributes:
        controls: K.
        mean: Of their effects; NaN without any.
        low, high: The band, mean ± t_{K−1} s √(1 + 1/K): the 95% prediction interval of one more fresh network. NaN for
            fewer than 2.
        net: The network's effect minus `mean`.
        learned: "learned": the effect lies outside the band. "as untrained": inside. "no claim": outside, but raw and net
            effect have opposite signs, so that the network falls where it has lost less than a fresh one, or the reverse.
            "not tested": too few controls, or an effect that is not defined.

    Example:
        >>> from ntkdiag.claims import control_band
        >>> band = control_band(1.0, [0.0, 0.1, -0.1])  # a fall of 1 beside fresh networks that do not fall
        >>> band.learned, band.net
        ('learned', 1.0)
    """

    controls: int
    mean: float
    low: float
    high: float
    net: float
    learned: str


def control_band(effect: float, controls: Sequence[float], level: float = BAND_LEVEL) -> ControlBand:
    """Compare an effect with those of fresh networks.

    Args:
        effect: Of the network.
        controls: Of K fresh networks on the same draws.
        level: Of the prediction interval, in (0, 1).

    Example:
        >>> from ntkdiag.claims import control_band
        >>> control_band(0.05, [0.0, 0.1, -0.1]).learned
        'as untrained'
    """
    values = np.asarray(controls, dtype=float)
    count = len(values)
    mean = float(values.mean()) if count else math.nan
    if count < MIN_CONTROLS or not np.isfinite([effect, mean]).all():
        return ControlBand(count, mean, math.nan, math.nan, effect - mean, NOT_TESTED)
    reach = quantile(level, count - 1) * float(values.std(ddof=1)) * math.sqrt(1 + 1 / count)
    low, high, net = mean - reach, mean + reach, effect - mean
    if low <= effect <= high:
        return ControlBand(count, mean, low, high, net, AS_UNTRAINED)
    return ControlBand(count, mean, low, high, net, NO_CLAIM if effect * net < 0 else LEARNED)
