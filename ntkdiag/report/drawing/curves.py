"""Numbers over log-SNR: lines with their intervals, the measured network beside the networks it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from ntkdiag.report.columns import column, ordered, positive, require_finite
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis, log_snr_axis, whole_ticks
from ntkdiag.report.drawing.labels import End, label_line_ends, line_end

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Scale = Literal["count", "log", "linear", "signed"]
MOST_MARKED = 20  # points; among more, full-size markers would hide the line


def draw_summaries(
    axes: Axes, summaries: Mapping[str, pd.DataFrame], name: str, label: str, scale: Scale = "count"
) -> None:
    """One column of several tables against log-SNR, with its intervals.

    Args:
        axes: Where to draw.
        summaries: Name of a network → its table; the first is the one measured. Tables without the column are left out.
        name: The column; `name_low` and `name_high` are its interval if present.
        label: Vertical axis, with units.
        scale: count: from zero up, whole ticks; log: logarithmic, values not above zero are left out;
            signed: logarithmic where every value is above zero, else linear with a line at zero.

    Raises:
        InputError: the first has no finite value to draw.
    """
    if scale == "signed":
        scale = "linear" if any((column(table, name) <= 0).any() for table in summaries.values()) else "log"
    log = scale == "log"
    measured = next(iter(summaries.values()))
    require_finite(name, _values(measured, name, log))
    ends = []
    for key, look in style.lines(summaries).items():
        summary = ordered(summaries[key])
        values = _values(summary, name, log)
        log_snr = column(summary, "log_snr")
        low, high = _values(summary, f"{name}_low", log), _values(summary, f"{name}_high", log)
        draw_with_interval(axes, log_snr, values, low, high, look=look)
        ends += line_end(key, log_snr, values, look)
    _set_scale(axes, scale)
    log_snr_axis(axes, column(measured, "log_snr"))
    axes.set_ylabel(label)
    label_line_ends(axes, ends if len(summaries) > 1 else [])


def _set_scale(axes: Axes, scale: Scale) -> None:
    if scale == "log":
        log_axis(axes, "y")
    elif scale == "count":
        axes.set_ylim(bottom=0)
        whole_ticks(axes)
    else:
        axes.axhline(0, color=theme.current().muted, lw=0.9)


def draw_lines(
    axes: Axes,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    looks: Mapping[str, style.Line] | None = None,
    marker_size: float = 0.0,
) -> list[End]:
    """Lines by name, without intervals.

    Args:
        axes: Where to draw.
        lines: Name → points x and y, [n] each; NaN leaves a gap.
        looks: Name → colour, dashes, marker; by default those of `style.lines`.
        marker_size: In points; 0 for none.

    Returns:
        Where each ends, for `label_line_ends`.
    """
    ends, drawn = [], looks or style.lines(lines)
    for name, (x, y) in lines.items():
        look = drawn[name]
        axes.plot(x, y, **look.plot, marker=look.marker if marker_size else None, ms=marker_size)
        ends += line_end(name, x, y, look)
    return ends


def draw_with_interval(
    axes: Axes, x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray, *, look: style.Line
) -> None:
    """A line with markers and its interval: a band, or a bar where neither neighbour has an interval.

    Args:
        axes: Where to draw.
        x, y: Points [n]; NaN leaves a gap.
        low, high: Interval [n]; NaN for none.
        look: Colour, dashes, marker.
    """
    size = 4.5 if len(x) <= MOST_MARKED else 2.0
    axes.plot(x, y, **look.plot, marker=look.marker, ms=size, mec=look.colour, mfc=look.colour)
    axes.fill_between(x, low, high, color=look.colour, alpha=0.18, lw=0)
    whole = np.isfinite(low) & np.isfinite(high)
    alone = whole & ~np.append(False, whole[:-1]) & ~np.append(whole[1:], False)
    axes.vlines(x[alone], low[alone], high[alone], color=look.colour, lw=1.4)


def _values(summary: pd.DataFrame, name: str, log: bool) -> np.ndarray:
    values = column(summary, name)
    return positive(values) if log else values
