"""How many directions the network can learn in at each noise level, and how strongly.

Effective rank, participation ratio, trace and top eigenvalue with their intervals, beside the same
numbers of the untrained network; and rarefaction, which tells whether enough samples were used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from ntkdiag.report.drawing import style
from ntkdiag.report.drawing.axes import (
    LABEL_SIZE,
    label_line_ends,
    line_end,
    log_axis,
    log_snr_axis,
    log_snr_bar,
    whole_ticks,
)
from ntkdiag.report.figures.frames import column, ordered, positive, require_finite

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

MOST_MARKED = 20  # points; among more, full-size markers would hide the line


def draw_effective_rank(axes: Axes, diagnosis: Diagnosis) -> None:
    """Effective rank against log-SNR with its interval, beside the untrained control."""
    draw_measure(axes, diagnosis, "effective_rank", "effective rank (directions)")


def draw_participation_ratio(axes: Axes, diagnosis: Diagnosis) -> None:
    """Participation ratio from pairs of samples, free of the finite-sample bias."""
    draw_measure(axes, diagnosis, "participation_ratio_pairs", "participation ratio, from pairs (directions)")


def draw_trace(axes: Axes, diagnosis: Diagnosis) -> None:
    """Trace of the kernel per sample and output: how fast the loss can fall in all directions together."""
    draw_measure(axes, diagnosis, "trace", "trace of the kernel / samples", "log")


def draw_trace_x0(axes: Axes, diagnosis: Diagnosis) -> None:
    """The trace brought to x0's units, so that networks with different targets compare."""
    draw_measure(axes, diagnosis, "trace_x0", "trace of the kernel in units of x0", "log")


def draw_top_eigenvalue(axes: Axes, diagnosis: Diagnosis) -> None:
    """Largest eigenvalue: how fast the loss can fall in the best direction."""
    draw_measure(axes, diagnosis, "top_eigenvalue", "top eigenvalue of the kernel / samples", "log")


def draw_excess(axes: Axes, diagnosis: Diagnosis) -> None:
    """Loss above the floor, E‖f − E[y|x]‖² per dimension: what training can still remove."""
    draw_measure(axes, diagnosis, "excess", "loss above the floor, per dimension", "log")


def draw_gsnr(axes: Axes, diagnosis: Diagnosis) -> None:
    """Gradient signal-to-noise: how far the gradients of single samples agree.

    It is unbiased, so where there is no signal some values are negative; the axis is then linear.
    """
    summaries = [diagnosis.summary, *(ref.summary for ref in diagnosis.refs.values())]
    negative = any((column(summary, "gsnr") <= 0).any() for summary in summaries)
    draw_measure(
        axes, diagnosis, "gsnr", "gradient signal / noise, per sample", "free" if negative else "log"
    )


def draw_measure(
    axes: Axes, diagnosis: Diagnosis, name: str, label: str, scale: Literal["count", "log", "free"] = "count"
) -> None:
    """One column of the summary against log-SNR with its interval, beside the reference networks.

    Args:
        axes: Where to draw.
        diagnosis: What was measured; references without the column are left out.
        name: Column of `diagnosis.summary`; `name_low` and `name_high` are its interval if present.
        label: Vertical axis, with units.
        scale: count: from zero up, whole ticks; log: logarithmic, values not above zero are left out;
            free: either side of a line at zero.

    Raises:
        InputError: the column has no finite value to draw.
    """
    summaries = {"trained": diagnosis.summary} | {key: ref.summary for key, ref in diagnosis.refs.items()}
    draw_summaries(axes, summaries, name, label, scale)


def draw_summaries(
    axes: Axes,
    summaries: Mapping[str, pd.DataFrame],
    name: str,
    label: str,
    scale: Literal["count", "log", "free"] = "count",
) -> None:
    """One column of several summaries against log-SNR; `draw_measure` for tables that are at hand.

    Args:
        axes: Where to draw.
        summaries: Name of a network → its table; the first is the one measured.
        name, label, scale: As `draw_measure`.

    Raises:
        InputError: the first has no finite value to draw.
    """
    log = scale == "log"
    measured = next(iter(summaries.values()))
    require_finite(name, _values(measured, name, log))
    ends = []
    for key, drawn in style.lines(summaries).items():
        summary = ordered(summaries[key])
        values = _values(summary, name, log)
        log_snr = column(summary, "log_snr")
        low, high = _values(summary, f"{name}_low", log), _values(summary, f"{name}_high", log)
        draw_with_interval(axes, log_snr, values, low, high, drawn=drawn)
        ends += line_end(key, log_snr, values, drawn)
    if scale == "log":
        log_axis(axes, "y")
    elif scale == "count":
        axes.set_ylim(bottom=0)
        whole_ticks(axes)
    else:
        axes.axhline(0, color=style.theme().muted, lw=0.9)
    log_snr_axis(axes, column(measured, "log_snr"))
    axes.set_ylabel(label)
    label_line_ends(axes, ends if len(summaries) > 1 else [])


def draw_with_interval(
    axes: Axes, x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray, *, drawn: style.Line
) -> None:
    """A line with markers and its interval: a band where two neighbours have one, a bar where one stands alone.

    Args:
        axes: Where to draw.
        x, y: Points [n]; NaN leaves a gap.
        low, high: Interval [n]; NaN for none.
        drawn: Colour, dashes, marker.
    """
    size = 4.5 if len(x) <= MOST_MARKED else 2.0
    axes.plot(x, y, **drawn.plot, marker=drawn.marker, ms=size, mec=drawn.colour, mfc=drawn.colour)
    axes.fill_between(x, low, high, color=drawn.colour, alpha=0.18, lw=0)
    whole = np.isfinite(low) & np.isfinite(high)
    alone = whole & ~np.append(False, whole[:-1]) & ~np.append(whole[1:], False)
    axes.vlines(x[alone], low[alone], high[alone], color=drawn.colour, lw=1.4)


def draw_rarefaction(axes: Axes, diagnosis: Diagnosis) -> None:
    """Effective rank against the number of samples used, one line a bucket, coloured by log-SNR.

    Raises:
        InputError: nothing was rarefied.
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
    axes.plot([0, top], [0, top], color=style.theme().muted, lw=0.9, ls=(0, (2, 2)))
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
        color=style.theme().muted,
    )


def _values(summary: pd.DataFrame, name: str, log: bool) -> np.ndarray:
    values = column(summary, name)
    return positive(values) if log else values
