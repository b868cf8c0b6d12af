"""Figures that draw one column of the summary over log-SNR: one call each instead of a function each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntkdiag.report.drawing.curves import draw_summaries
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.inputs import DIAGNOSIS
from ntkdiag.report.statistics import STATISTICS, Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis


def column_figure(name: str, *, group: Group, title: str, caption: str, column: str = "") -> None:
    """Register a figure of one column of the summary, with its interval, beside the reference networks.

    Args:
        name, group, title, caption: As for `figure`.
        column: Which column; the one called `name` if empty.
    """

    @figure(name, draws=DIAGNOSIS, group=group, title=title, caption=caption)
    def draw(axes: Axes, diagnosis: Diagnosis) -> None:
        draw_statistic(axes, diagnosis, column or name)


def draw_statistic(axes: Axes, diagnosis: Diagnosis, name: str) -> None:
    """A column of the summary over log-SNR with its interval, beside the reference networks.

    Raises:
        InputError: it has no finite value.
    """
    from ntkdiag.diagnosis.controls import shown_references

    references = {key: one.summary for key, one in shown_references(diagnosis.refs).items()}
    shown = STATISTICS.get(name, Axis(name.replace("_", " "), "linear"))
    draw_summaries(axes, {"trained": diagnosis.summary} | references, name, shown.label, shown.scale)
