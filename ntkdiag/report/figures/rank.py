"""In how many directions the network can still learn at each noise level, and whether enough samples were used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.columns import column, ordered, require_finite
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_snr_bar, whole_ticks
from ntkdiag.report.drawing.labels import LABEL_SIZE
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.figures.summary_column import column_figure
from ntkdiag.report.inputs import DIAGNOSIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

column_figure(
    "effective_rank",
    group=Group.RANK,
    title="Effective rank",
    caption="Lower means fewer directions in which the network can still learn at that noise level. "
    "Bands are 90% intervals over samples. The grey curve is one untrained network; where the trained "
    "curve lies below it, training has reduced the rank.",
)
column_figure(
    "participation_ratio",
    group=Group.APPENDIX,
    title="Participation ratio",
    caption="A second count of directions, without the bias that few samples cause: it should rise "
    "and fall with the effective rank.",
    column="participation_ratio_pairs",
)


@figure(
    "rarefaction",
    draws=DIAGNOSIS,
    group=Group.RANK,
    title="Were there enough samples?",
    caption="A curve that has flattened has enough samples. One that still rises gives a rank that is "
    "too low, so compare noise levels only at the same number of samples.",
)
def draw_rarefaction(axes: Axes, diagnosis: Diagnosis) -> None:
    """Effective rank against the number of samples used, one line a bucket, coloured by log-SNR.

    Raises:
        InputError: the diagnosis has no ranks of subsets.
    """
    frame = ordered(diagnosis.rarefaction, "samples")
    require_finite("rarefaction", column(frame, "effective_rank"))
    mappable = style.log_snr_map(column(frame, "log_snr"))
    for _, rows in frame.groupby("bucket"):
        spread = column(rows, "effective_rank_std")
        axes.errorbar(
            rows["samples"],
            column(rows, "effective_rank"),
            yerr=None if np.isnan(spread).all() else np.nan_to_num(spread),
            color=mappable.to_rgba(column(rows, "log_snr"))[0],
            lw=1.5,
            elinewidth=0.9,
            marker="o",
            ms=3.5,
        )
    _draw_limit(axes, column(frame, "samples"))
    axes.set_xlabel("samples in the kernel")
    axes.set_ylabel("effective rank (directions)")
    log_snr_bar(axes, mappable, column(frame, "log_snr"))


def _draw_limit(axes: Axes, samples: np.ndarray) -> None:
    """The line rank = samples, as far up as the data goes."""
    top = axes.get_ylim()[1]
    axes.plot([0, top], [0, top], color=theme.current().muted, lw=0.9, ls=(0, (2, 2)))
    axes.set_ylim(0, top)
    whole_ticks(axes)
    axes.set_xlim(0, float(np.max(samples)) * 1.04)
    axes.annotate(
        "limit: one per sample",
        xy=(top, top),
        xytext=(6, -4),
        textcoords="offset points",
        va="top",
        fontsize=LABEL_SIZE,
        color=theme.current().muted,
    )
