"""Figures that draw one column of the summary over log-SNR: one call each instead of a function each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntkdiag.report.drawing.curves import Scale, draw_summaries
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.inputs import DIAGNOSIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis


def column_figure(
    name: str, *, group: Group, title: str, caption: str, label: str, scale: Scale = "count", column: str = ""
) -> None:
    """Register a figure of one column of the summary, with its interval, beside the reference networks.

    Args:
        name, group, title, caption: As for `figure`.
        label: Vertical axis, with units.
        scale: As for `draw_summaries`.
        column: Which column; the one called `name` if empty.
    """

    @figure(name, draws=DIAGNOSIS, group=group, title=title, caption=caption)
    def draw(axes: Axes, diagnosis: Diagnosis) -> None:
        from ntkdiag.diagnosis.controls import shown_references

        references = {key: one.summary for key, one in shown_references(diagnosis.refs).items()}
        draw_summaries(axes, {"trained": diagnosis.summary} | references, column or name, label, scale)
