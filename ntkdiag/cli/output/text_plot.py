"""A curve drawn with characters in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ntkdiag.report.formatting import number

_WIDTH, _HEIGHT = 57, 8
# Characters for a column filled by 0 to 8 eighths of a line.
_EIGHTHS = " ▁▂▃▄▅▆▇█"
# Smallest share of the largest value that is still drawn.
_DEPTH = 1e-4


def text_plot(levels: Sequence[float], values: Sequence[float]) -> str:
    """Draw values over log-SNR as columns whose height is the logarithm of the value.

    Args:
        levels: Log-SNR, ascending and evenly spaced.
        values: One number for each level; a number that is not positive and finite has no column.

    Returns:
        Eight lines with the largest and the smallest value beside them, and the ends of log-SNR below; an empty text
        if no value is positive.
    """
    drawn = [value if 0 < value < math.inf else math.nan for value in _thinned(values)]
    sound = [value for value in drawn if not math.isnan(value)]
    if not sound:
        return ""
    top = max(sound)
    bottom = max(min(sound), top * _DEPTH)
    heights = [_eighths(value, bottom, top) for value in drawn]
    labels = {0: number(top), _HEIGHT - 1: number(bottom)}
    margin = max(len(label) for label in labels.values())
    lines = []
    for row in range(_HEIGHT):
        below = 8 * (_HEIGHT - 1 - row)
        cells = "".join(_EIGHTHS[min(max(height - below, 0), 8)] for height in heights)
        lines.append(f"{labels.get(row, ''):>{margin}} │{cells}".rstrip())
    left, right = f"{levels[0]:g}", f"{levels[-1]:g}"
    lines.append(" " * margin + " └" + "─" * len(heights))
    lines.append(" " * (margin + 2) + left + right.rjust(len(heights) - len(left)) + "  log-SNR")
    return "\n".join(lines)


def _thinned(values: Sequence[float]) -> list[float]:
    """At most one value for each column of the plot."""
    count = min(len(values), _WIDTH)
    step = (len(values) - 1) / max(count - 1, 1)
    return [float(values[round(index * step)]) for index in range(count)]


def _eighths(value: float, bottom: float, top: float) -> int:
    """Height of a column; the smallest drawn value is one eighth high."""
    if math.isnan(value) or value < bottom:
        return 0
    share = math.log(value / bottom) / math.log(top / bottom) if top > bottom else 1.0
    return 1 + round(share * (8 * _HEIGHT - 1))
