"""Direct labels that do not overlap: a name at the end of its line, a short text beside its point.

Labels have the colour of what they name, so that no legend has to be matched against lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.drawing import style, theme
from ntkdiag.report.formatting import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL_SIZE = 8.5  # points
# Sides of a point that a label may stand on, the preferred first: (across, up).
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1), (2, 0.5), (-2, 0.5))


@dataclass(frozen=True)
class End:
    """Where a line ends, what it is called, and how it is drawn."""

    x: float
    y: float
    text: str
    look: style.Line


def line_end(text: str, x: np.ndarray, y: np.ndarray, look: style.Line) -> list[End]:
    """The last finite point of a line, as a list of one; empty where it has none."""
    finite = np.flatnonzero(np.isfinite(y))
    return [End(float(x[finite[-1]]), float(y[finite[-1]]), text, look)] if len(finite) else []


def label_line_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Write names to the right of the axes, each tied to the end of its line, spread so that none overlap.

    Where two lines share a colour, a piece of each line stands before its name. Call it last: it reads
    the limits and scale of the axes.
    """
    if not ends:
        return
    left, right = axes.get_xlim()
    heights = _heights(axes, [end.y for end in ends])
    gap = 1.25 * LABEL_SIZE * _pixels_a_point(axes) / axes.bbox.height
    sample = 0.06 if len({end.look.colour for end in ends}) < len(ends) else 0.0
    for end, height, place in zip(ends, heights, spread(heights, gap), strict=True):
        colour = end.look.colour
        axes.annotate(
            one_line(end.text),
            xy=((end.x - left) / (right - left), height),
            xytext=(1.04, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color="none" if sample else colour,
            fontsize=LABEL_SIZE,
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )
        if sample:
            piece = end.look.plot | {"linewidth": min(end.look.width, 1.8)}
            axes.plot([1.05, 1.05 + sample], [place] * 2, **piece, transform=axes.transAxes, clip_on=False)
            axes.annotate(
                one_line(end.text),
                xy=(1.07 + sample, place),
                xycoords="axes fraction",
                color=colour,
                fontsize=LABEL_SIZE,
                va="center",
                annotation_clip=False,
                parse_math=False,
            )


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Positions nearest to the wanted ones (least squares) that stand at least `gap` apart.

    An isotonic regression of the wanted positions after the gaps are taken out; the result is then moved into [0, 1], or
    centred on it where it is longer.

    Args:
        wanted: Wanted positions [n], any order.
        gap: Least distance between two.

    Returns:
        Positions [n] in the order of `wanted`.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    pooled = isotonic_regression(wanted[order] - steps).x
    length = steps[-1]
    pooled = np.clip(pooled, 0.0, 1.0 - length) if length <= 1 else np.full(len(steps), (1.0 - length) / 2)
    placed = np.empty(len(wanted))
    placed[order] = pooled + steps
    return placed


def label_points(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    texts: list[str],
    bars: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Write a short text beside each point, on whichever side is free of points, bars and earlier texts.

    Call it last: it reads the limits and scales of the axes.

    Args:
        axes: Drawn axes.
        x, y: Points [n], finite.
        texts: A text each.
        bars: Low and high ends [n] of vertical bars through the points; NaN for none.
    """
    low, high = bars if bars is not None else (y, y)
    unit = _pixels_a_point(axes)
    pixels = axes.transData.transform(np.column_stack([x, y]))
    bottoms = axes.transData.transform(np.column_stack([x, np.where(np.isfinite(low), low, y)]))[:, 1]
    tops = axes.transData.transform(np.column_stack([x, np.where(np.isfinite(high), high, y)]))[:, 1]
    taken = [(px - 4 * unit, py - 4 * unit, px + 4 * unit, py + 4 * unit) for px, py in pixels]
    taken += [(px - unit, b, px + unit, t) for (px, _), b, t in zip(pixels, bottoms, tops, strict=True)]
    for (px, py), vx, vy, text in zip(pixels, x, y, texts, strict=True):
        width, height = 5.2 * unit * len(text), 8.0 * unit
        candidates = []
        for across, up in _SIDES:
            cx, cy = px + across * (width / 2 + 6 * unit), py + up * (height / 2 + 6 * unit)
            candidates.append((cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
        box = min(candidates, key=lambda one: sum(_overlap(one, other) for other in taken))
        taken.append(box)
        axes.annotate(
            text,
            xy=(vx, vy),
            xytext=(((box[0] + box[2]) / 2 - px) / unit, ((box[1] + box[3]) / 2 - py) / unit),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color=theme.current().muted,
            annotation_clip=False,
        )


def _heights(axes: Axes, values: list[float]) -> np.ndarray:
    """Where values stand on the vertical axis, as shares of its height, kept within it."""
    scale = axes.yaxis.get_transform().transform
    bottom, top = scale(np.asarray(axes.get_ylim(), dtype=float))
    shares = (scale(np.asarray(values, dtype=float)) - bottom) / (top - bottom)
    return np.clip(np.nan_to_num(shares, nan=0.0), 0.0, 1.0)


def _pixels_a_point(axes: Axes) -> float:
    return axes.figure.dpi / 72


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area shared by two boxes (x0, y0, x1, y1)."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
