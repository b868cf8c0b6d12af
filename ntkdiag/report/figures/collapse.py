"""Does the kernel collapse? Its rank, its rank without the answer that all samples share, and the share of that answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.columns import column, ordered, require_finite
from ntkdiag.report.drawing import style
from ntkdiag.report.drawing.axes import log_snr_axis, whole_ticks
from ntkdiag.report.drawing.curves import draw_with_interval
from ntkdiag.report.drawing.labels import End, label_line_ends, line_end
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.inputs import DIAGNOSIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

# Panel → column of the summary, and label of the vertical axis.
PANELS = {
    "all directions": ("effective_rank", "effective rank (directions)"),
    "without the shared answer": ("centred_effective_rank", "effective rank, centred (directions)"),
    "the shared answer": ("shared_share", "share of the trace that all samples share"),
}


def _panels(diagnosis: Diagnosis) -> Sequence[str]:
    return list(PANELS)


@figure(
    "collapse",
    draws=DIAGNOSIS,
    group=Group.RANK,
    title="Does the kernel collapse?",
    caption="All directions: how many ways there are to change the network's answers. The shared answer: the share of the "
    "kernel that changes the answers to all samples alike, the same everywhere. Without the shared answer: the directions "
    "that are left, which tell samples apart; there can be many of them even where one large shared answer makes the "
    "count of all directions small. Areas around the line are 90% intervals over samples; the grey area is the range of "
    "the untrained networks, and the grey line their mean.",
    panels=_panels,
)
def draw_collapse(axes: Axes, diagnosis: Diagnosis, panel: str) -> None:
    """One statistic over log-SNR, with its interval, beside the range of the untrained controls.

    Raises:
        InputError: the diagnosis has no such column.
    """
    name, label = PANELS[panel]
    summary = ordered(diagnosis.summary)
    log_snr, values = column(summary, "log_snr"), column(summary, name)
    require_finite("collapse", values)
    ends = _draw_controls(axes, diagnosis, name)
    look = style.line("trained")
    low, high = (column(summary, f"{name}{end}") for end in ("_low", "_high"))
    draw_with_interval(axes, log_snr, values, low, high, look=look)
    ends += line_end("trained", log_snr, values, look)
    if name == "shared_share":
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)
        whole_ticks(axes)
    log_snr_axis(axes, log_snr)
    axes.set_ylabel(label)
    axes.set_title(panel, loc="left")
    label_line_ends(axes, ends if len(ends) > 1 else [])


def _draw_controls(axes: Axes, diagnosis: Diagnosis, name: str) -> list[End]:
    """The mean of the untrained networks, and the area between the lowest and the highest."""
    from ntkdiag.diagnosis.controls import CONTROL, controls_of

    tables = [ordered(control.summary) for control in controls_of(diagnosis.refs).values()]
    rows = [column(table, name) for table in tables if len(table) == len(diagnosis.summary)]
    if not rows or not np.isfinite(rows).any():
        return []
    log_snr, look = column(tables[0], "log_snr"), style.line(CONTROL)
    axes.fill_between(log_snr, np.min(rows, 0), np.max(rows, 0), color=look.colour, alpha=0.3, lw=0)
    mean = np.mean(rows, 0)
    axes.plot(log_snr, mean, **look.plot)
    return line_end(CONTROL, log_snr, mean, look)
