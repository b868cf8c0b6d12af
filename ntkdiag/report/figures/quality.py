"""Quality of the samples of each run with its interval, one metric an axes, since their units differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.columns import column, require_finite
from ntkdiag.report.drawing import style
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.formatting import number, one_line
from ntkdiag.report.inputs import QUALITY

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def metrics_present(quality: pd.DataFrame) -> list[str]:
    """Metrics with a finite value, in the order of the table.

    Raises:
        InputError: there is none.
    """
    finite = quality[np.isfinite(column(quality, "value"))]
    names = [str(name) for name in finite["metric"].unique()] if "metric" in finite.columns else []
    if not names:
        raise InputError("quality", expected="columns run, metric, value with finite values", got="none")
    return names


@figure(
    "quality",
    draws=QUALITY,
    group=Group.TRAINING,
    title="Quality of the samples",
    caption="One point a run with its interval, one panel a metric: intervals that do not overlap "
    "show a difference, intervals that overlap leave it open.",
    panels=metrics_present,
    size=(5.6, 2.2),
)
def draw_metric(axes: Axes, quality: pd.DataFrame, metric: str) -> None:
    """One metric: a point a run with its interval and its value beside it.

    Args:
        axes: Where to draw.
        quality: Columns run, metric, value, low, high.
        metric: Which one.

    Raises:
        InputError: no finite value of it.
    """
    rows = quality[quality["metric"].astype(str) == metric]
    values = column(rows, "value")
    require_finite(f"quality: {one_line(metric)}", values)
    low, high = column(rows, "low"), column(rows, "high")
    names = [str(name) for name in rows["run"]]
    looks = style.lines(dict.fromkeys(quality["run"].astype(str)))
    for place, name in enumerate(names):
        look = looks[name]
        axes.hlines(place, low[place], high[place], color=look.colour, lw=2)
        axes.plot(values[place], place, marker=look.marker, ms=7, color=look.colour)
        axes.annotate(
            number(values[place]),
            xy=(values[place], place),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=look.colour,
        )
    axes.set_yticks(range(len(names)), [one_line(name, 22) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.margins(x=0.15)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(one_line(metric), parse_math=False)
