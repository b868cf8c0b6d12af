"""Eigenvalue spectra of the kernel at each noise level: as lines, and as a map over log-SNR.

A spectrum that falls steeply means that the network can only learn in a few directions there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.columns import cell_edges, column, ordered, positive, require_finite
from ntkdiag.report.drawing import style
from ntkdiag.report.drawing.axes import colour_bar, log_axis, log_snr_axis, log_snr_bar
from ntkdiag.report.drawing.labels import LABEL_SIZE
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.inputs import DIAGNOSIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

# Below this share of the largest eigenvalue, float noise is as large as the eigenvalue (tuned here).
SMALLEST_SHARE = 1e-7


@figure(
    "spectra",
    draws=DIAGNOSIS,
    group=Group.RANK,
    title="Eigenvalue spectra",
    caption="One line a noise level: a line that falls steeply has few strong directions, a line that "
    "lies low learns slowly in all of them.",
)
def draw_spectra(axes: Axes, diagnosis: Diagnosis) -> None:
    """One line a bucket: eigenvalue of K/N against its index, both logarithmic, coloured by log-SNR.

    Raises:
        InputError: no positive eigenvalue.
    """
    spectra = ordered(diagnosis.spectra, "index")
    values = positive(column(spectra, "eigenvalue"))
    require_finite("spectra", values)
    mappable = style.log_snr_map(column(spectra, "log_snr"))
    for _, rows in spectra.groupby("bucket"):
        eigenvalues = positive(column(rows, "eigenvalue"))
        eigenvalues[eigenvalues < SMALLEST_SHARE * np.nanmax(values)] = np.nan
        shape = "o" if len(rows) == 1 else None
        axes.plot(
            rows["index"],
            eigenvalues,
            color=mappable.to_rgba(column(rows, "log_snr"))[0],
            lw=1.5,
            marker=shape,
        )
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlabel("index of the eigenvalue, largest first")
    axes.set_ylabel("eigenvalue of the kernel / samples")
    log_snr_bar(axes, mappable, column(spectra, "log_snr"))


@figure(
    "spectrum_map",
    draws=DIAGNOSIS,
    group=Group.RANK,
    title="How the trace is shared among eigenvalues",
    caption="Each column is the spectrum of one noise level, largest eigenvalue at the bottom: the "
    "higher the bright part reaches, the more directions share the trace.",
)
def draw_spectrum_map(axes: Axes, diagnosis: Diagnosis) -> None:
    """Share of each eigenvalue in the trace, log-SNR across, index upwards; the line is the effective rank.

    Raises:
        InputError: no positive eigenvalue.
    """
    from matplotlib.colors import LogNorm

    summary = ordered(diagnosis.summary)
    every = positive(column(diagnosis.spectra, "share"))
    require_finite("spectrum_map", every)
    shares = {bucket: ordered(rows, "index") for bucket, rows in diagnosis.spectra.groupby("bucket")}
    largest = float(np.nanmax(every))
    norm = LogNorm(max(float(np.nanmin(every)), 1e-5 * largest), largest)
    cells = None
    for bucket, low, high in zip(summary["bucket"], *cell_edges(summary), strict=True):
        if bucket not in shares:
            continue
        share = np.clip(column(shares[bucket], "share"), norm.vmin, None)
        index = column(shares[bucket], "index")
        edges = np.append(index - 0.5, index[-1] + 0.5)
        cells = axes.pcolormesh([low, high], edges, share[:, None], norm=norm, cmap="magma", rasterized=True)
    _mark_effective_rank(axes, column(summary, "log_snr"), column(summary, "effective_rank"))
    axes.grid(False)
    axes.set_yscale("log")
    axes.set_ylim(0.5, None)
    log_axis(axes, "y")
    log_snr_axis(axes, np.concatenate(cell_edges(summary)), margin=0.0)
    axes.set_ylabel("index of the eigenvalue, largest first")
    if cells is not None:
        colour_bar(axes, cells, "share of the trace")


def _mark_effective_rank(axes: Axes, log_snr: np.ndarray, rank: np.ndarray) -> None:
    """The effective rank as a line, labelled at its highest point, where the map above is dark."""
    if not np.isfinite(rank).any():
        return
    axes.plot(log_snr, rank, color="white", lw=1.6, marker="o", ms=3.5, mec="black", mew=0.5)
    highest = int(np.nanargmax(rank))
    side = ("left", "center", "right")[min(3 * highest // len(rank), 2)] if len(rank) > 2 else "center"
    axes.annotate(
        "effective rank",
        xy=(log_snr[highest], rank[highest]),
        xytext=(0, 9),
        textcoords="offset points",
        ha=side,
        color="white",
        fontsize=LABEL_SIZE,
    )
