"""Axes: the log-SNR axis that most figures share, logarithmic axes with plain tick labels, colour bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.formatting import level, log_tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import FuncFormatter

LOG_SNR_LABEL = "← noisier      log-SNR  ln(α²/σ²)      cleaner →"


def log_snr_axis(axes: Axes, log_snr: np.ndarray, margin: float = 0.04) -> None:
    """Name the horizontal axis, tick it at whole log-SNRs, and let it cover all of them, drawn or missing.

    Args:
        axes: Whose horizontal axis it is.
        log_snr: Finite log-SNRs [n] that the axis covers.
        margin: Empty space on either side, as a share of the width; one log-SNR alone gets a nat.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = float(np.min(log_snr)), float(np.max(log_snr))
    room = margin * (high - low) if high > low else 1.0
    axes.set_xlim(low - room, high + room)
    axes.set_xlabel(LOG_SNR_LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=11, steps=[1, 2, 5, 10]))


def whole_ticks(axes: Axes) -> None:
    """Ticks of the vertical axis at whole numbers, for counts of directions."""
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def log_axis(axes: Axes, which: str = "y") -> None:
    """Make an axis logarithmic with plain tick labels (0.01, 1, 10⁻⁵); call it after drawing.

    Args:
        axes: Drawn axes with positive data.
        which: "x" or "y".
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    axes.set_yscale("log") if which == "y" else axes.set_xscale("log")
    axis: Axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = sorted(axes.get_ylim() if which == "y" else axes.get_xlim())
    decades = np.log10(high / low)
    if decades < 0.8:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,), numticks=9))
    axis.set_major_formatter(_tick_format())
    axis.set_minor_formatter(NullFormatter())


def _tick_format() -> FuncFormatter:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: log_tick(value))


def colour_bar(axes: Axes, mappable: ScalarMappable, label: str, ticks: list[float] | None = None) -> None:
    """A slim colour bar beside `axes`, with plain tick labels also where it is logarithmic.

    Args:
        axes: Whose place it takes a strip of.
        mappable: What is explained.
        label: Its name, with units.
        ticks: Where the ticks stand; None lets matplotlib choose.
    """
    from matplotlib.colors import LogNorm

    plain = _tick_format() if isinstance(mappable.norm, LogNorm) else None
    bar = axes.figure.colorbar(
        mappable, ax=axes, pad=0.02, fraction=0.05, aspect=28, ticks=ticks, format=plain
    )
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()


def log_snr_bar(axes: Axes, mappable: ScalarMappable, log_snr: np.ndarray) -> None:
    """The colour bar of log-SNR; where all is one level, a title that names it instead."""
    levels = np.unique(log_snr)
    if len(levels) == 1:
        axes.set_title(f"log-SNR {level(levels[0])}")
    else:
        colour_bar(axes, mappable, "log-SNR (bright is clean)")
