"""The loss at each noise level, what of it training can still remove, and how far single gradients agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.columns import column, ordered, positive, require_finite
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis, log_snr_axis
from ntkdiag.report.drawing.curves import draw_with_interval
from ntkdiag.report.drawing.labels import End, label_line_ends, line_end
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.figures.summary_column import column_figure
from ntkdiag.report.inputs import DIAGNOSIS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

column_figure(
    "excess",
    group=Group.RECOVERABILITY,
    title="What is left to learn",
    caption="Loss above the floor, at noise levels where the floor is known exactly: training effort "
    "is well spent where this is large and the rank is not small.",
)
column_figure(
    "gsnr",
    group=Group.RECOVERABILITY,
    title="Gradient signal-to-noise",
    caption="How far the gradients of single samples agree: at 0.1 a batch needs about ten samples "
    "before the common direction outweighs the noise. A band that reaches zero means that no common "
    "direction was found.",
)


@figure(
    "loss",
    draws=DIAGNOSIS,
    group=Group.RECOVERABILITY,
    title="Loss and its floor",
    caption="The grey line is the floor that no training removes; the gap between it and the trained "
    "curve is left to learn. Where the floor is not known it is an upper bound of the floor instead: the "
    "loss may lie below that, and no gap can be read from it.",
)
def draw_loss(axes: Axes, diagnosis: Diagnosis) -> None:
    """Loss per bucket with its interval; with an exact oracle, the floor that no training removes is filled.

    Raises:
        InputError: no finite loss.
    """
    from ntkdiag.diagnosis.controls import (
        shown_references,
    )  # loads torch, which a list of figures does not need

    summary = ordered(diagnosis.summary)
    log_snr, loss = column(summary, "log_snr"), positive(column(summary, "loss"))
    require_finite("loss", loss)
    ends = []
    for name, ref in shown_references(diagnosis.refs).items():
        ends += _draw_one_loss(axes, ordered(ref.summary), name, style.lines([name])[name])
    ends += _draw_one_loss(axes, summary, "trained", style.line("trained"))
    floor = positive(column(summary, "floor"))
    axes.set_yscale("log")
    if np.isfinite(floor).any():
        quiet = style.Line(theme.current().muted, width=1.2)
        axes.plot(log_snr, floor, **quiet.plot)
        # From the data's covariance alone the floor is known only from above; it then has no excess.
        exact = np.isfinite(column(summary, "excess")).any()
        if exact:
            bottom = axes.get_ylim()[0]
            axes.fill_between(log_snr, bottom, floor, color=quiet.colour, alpha=0.16, lw=0)
            axes.set_ylim(bottom=bottom)
        name = "floor: not learnable" if exact else "upper bound of the floor"
        ends += line_end(name, log_snr, floor, quiet)
    log_axis(axes, "y")
    log_snr_axis(axes, log_snr)
    axes.set_ylabel("squared error of the target, per dimension")
    label_line_ends(axes, ends if len(ends) > 1 else [])


def _draw_one_loss(axes: Axes, summary: pd.DataFrame, name: str, drawn: style.Line) -> list[End]:
    log_snr, loss = column(summary, "log_snr"), positive(column(summary, "loss"))
    low, high = positive(column(summary, "loss_low")), positive(column(summary, "loss_high"))
    draw_with_interval(axes, log_snr, loss, low, high, look=drawn)
    return line_end(name, log_snr, loss, drawn)
