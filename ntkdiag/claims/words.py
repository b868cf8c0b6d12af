"""The four words that an effect gets, and the smallest effect that counts. Fixed here, before any data is seen."""

from __future__ import annotations

import math

FALLS, RISES, ABSENT, CANNOT_SAY = "falls", "rises", "absent", "cannot say"
# Smallest effect that counts: a factor of 1.1.
THRESHOLD = math.log(1.1)
# Level of the simultaneous intervals: each of the three definite words is wrong in at most 5% of measurements, in any row.
LEVEL = 0.9


def word(low: float, high: float, threshold: float = THRESHOLD) -> str:
    """What an interval of an effect says.

    Args:
        low, high: Simultaneous limits of a difference of natural logarithms, positive for a fall; NaN where there are none.
        threshold: Smallest effect that counts.

    Returns:
        "falls": all of the interval lies above the threshold. "rises": all of it lies below −threshold. "absent": all of it
        lies within ±threshold. "cannot say": otherwise.
    """
    if low > threshold:
        return FALLS
    if high < -threshold:
        return RISES
    return ABSENT if -threshold <= low and high <= threshold else CANNOT_SAY
