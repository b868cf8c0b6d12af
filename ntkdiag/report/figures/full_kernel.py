"""The full kernel, with a row for every output: its rank, its spectral density, and what its strong directions contain.

One line a bucket, with the colour that its log-SNR has in every figure. `eigenfunctions` draws the eigenfunctions as images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.columns import column, ordered, positive, require_finite
from ntkdiag.report.drawing import style
from ntkdiag.report.drawing.axes import log_axis, log_snr_bar
from ntkdiag.report.drawing.curves import draw_summaries
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.formatting import level
from ntkdiag.report.inputs import FULL_KERNEL, full_kernel_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

# Lanczos quadrature represents the many small eigenvalues by a few nodes, which are not peaks of the density. Densities are
# therefore smoothed by this standard deviation in ln e (tuned here), after which a single eigenvalue has a peak of 0.7;
# below LEAST_DENSITY there is no eigenvalue.
WIDTH, LEAST_DENSITY = 0.6, 0.1
SIGNALS = {"target": "target_alignment", "residual": "residual_alignment"}


@figure(
    "full_rank",
    draws=FULL_KERNEL,
    group=Group.FULL_KERNEL,
    title="Effective rank of the full kernel",
    caption="Directions in samples and outputs together, of which there are many more than samples. "
    "Bands are 90% intervals over random vectors for these samples; they do not cover the choice of "
    "samples.",
)
def draw_full_rank(axes: Axes, diagnosis: Diagnosis) -> None:
    """Effective rank of the full kernel with its interval over random vectors, beside the untrained control."""
    kernels = {"trained": full_kernel_of(diagnosis)} | {
        name: ref.full for name, ref in diagnosis.refs.items() if ref.full is not None
    }
    summaries = {name: kernel.summary for name, kernel in kernels.items()}
    draw_summaries(axes, summaries, "effective_rank", "effective rank of the full kernel (directions)")


@figure(
    "full_density",
    draws=FULL_KERNEL,
    group=Group.FULL_KERNEL,
    title="Spectral density of the full kernel",
    caption="How many of its eigenvalues lie around each size, with 90% bands over random vectors: on "
    "the right the few strong directions, on the left the many in which almost nothing is learned. "
    "Ripples on the left are not peaks.",
)
def draw_density(axes: Axes, diagnosis: Diagnosis) -> None:
    """Eigenvalues per unit of ln e against e, with a band over random vectors, one line a bucket; see `WIDTH`.

    Raises:
        InputError: no density was measured.
    """
    frame = ordered(full_kernel_of(diagnosis).density, "log_eigenvalue")
    require_finite(
        "full_density", column(frame, "density"), fix="Measure with --slq 2 or more random vectors."
    )
    mappable = style.log_snr_map(column(frame, "log_snr"))
    for _, rows in frame.groupby("bucket"):
        colour = mappable.to_rgba(column(rows, "log_snr"))[0]
        place = column(rows, "log_eigenvalue")
        height, low, high = (smeared(place, column(rows, name)) for name in ("density", "low", "high"))
        seen = np.where(height > LEAST_DENSITY, height, np.nan)
        axes.plot(np.exp(place), seen, color=colour, lw=1.5)
        axes.fill_between(
            np.exp(place), *np.clip([low, high], LEAST_DENSITY, None), color=colour, alpha=0.18, lw=0
        )
    axes.set_ylim(bottom=LEAST_DENSITY)
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlabel("eigenvalue of the full kernel / rows")
    axes.set_ylabel("eigenvalues per unit of ln(eigenvalue)")
    log_snr_bar(axes, mappable, column(frame, "log_snr"))


def smeared(place: np.ndarray, height: np.ndarray) -> np.ndarray:
    """A density on an even grid [n], smoothed by a Gaussian of `WIDTH`; NaN counts as zero."""
    if len(place) < 2:
        return height
    step = (place[-1] - place[0]) / (len(place) - 1)
    bumps = np.exp(-0.5 * ((place[:, None] - place) / WIDTH) ** 2) / (WIDTH * np.sqrt(2 * np.pi))
    return step * bumps @ np.nan_to_num(height)


def signals_present(diagnosis: Diagnosis) -> list[str]:
    """Signals whose alignment is known, a panel each.

    Raises:
        InputError: none is.
    """
    spectra = full_kernel_of(diagnosis).spectra
    names = [name for name, of in SIGNALS.items() if np.isfinite(column(spectra, of)).any()]
    if not names:
        raise InputError("figure 'alignment'", expected="a target or a residual that is not zero", got="none")
    return names


@figure(
    "alignment",
    draws=FULL_KERNEL,
    group=Group.FULL_KERNEL,
    title="What lies in the strongest directions",
    caption="A curve that climbs at once belongs to a signal that the network can learn fast. The "
    "residual is what the network still gets wrong: where its curve is flat, the error lies in "
    "directions that are hardly learned.",
    panels=signals_present,
)
def draw_alignment(axes: Axes, diagnosis: Diagnosis, signal: str) -> None:
    """Share of a signal's energy in the first k eigenfunctions, against k, one line a bucket.

    Args:
        axes: Where to draw.
        diagnosis: With a full kernel.
        signal: "target" or "residual".
    """
    full = full_kernel_of(diagnosis)
    frame = ordered(full.spectra, "index")
    require_finite("alignment", column(frame, SIGNALS[signal]))
    mappable = style.log_snr_map(column(frame, "log_snr"))
    for _, rows in frame.groupby("bucket"):
        index, share = column(rows, "index"), np.cumsum(column(rows, SIGNALS[signal]))
        axes.plot(
            np.append(0, index),
            np.append(0, share),
            color=mappable.to_rgba(column(rows, "log_snr"))[0],
            lw=1.5,
            marker="o",
            ms=2.5,
        )
    _whole_index(axes, column(frame, "index"))
    axes.set_ylim(0, None)
    axes.set_xlabel("number of eigenfunctions, strongest first")
    axes.set_ylabel(f"share of the {signal}'s energy in them")
    log_snr_bar(axes, mappable, column(frame, "log_snr"))
    levels = np.unique(column(frame, "log_snr"))
    axes.set_title(signal if len(levels) > 1 else f"{signal}, log-SNR {level(levels[0])}")


@figure(
    "contraction",
    draws=FULL_KERNEL,
    group=Group.FULL_KERNEL,
    title="How fast the residual would shrink",
    caption="Under gradient flow with the kernel as it is now. The true curve lies within the band, "
    "whose upper edge is the line; the band is wide at late times, which the smallest eigenvalues "
    "decide.",
)
def draw_contraction(axes: Axes, diagnosis: Diagnosis) -> None:
    """Share of the residual's energy that is left over gradient-flow time: a band between two bounds for each bucket.

    Raises:
        InputError: no bucket has a kernel and a residual.
    """
    frame = ordered(full_kernel_of(diagnosis).contraction, "time")
    require_finite("contraction", positive(column(frame, "time")), column(frame, "high"))
    mappable = style.log_snr_map(column(frame, "log_snr"))
    for _, rows in frame.groupby("bucket"):
        colour = mappable.to_rgba(column(rows, "log_snr"))[0]
        times, low, high = (column(rows, name) for name in ("time", "low", "high"))
        axes.plot(times, high, color=colour, lw=1.5)
        axes.fill_between(times, low, high, color=colour, alpha=0.2, lw=0)
    axes.set_ylim(0, 1.02)
    log_axis(axes, "x")
    axes.set_xlabel("gradient-flow time (1 / eigenvalue)")
    axes.set_ylabel("share of the residual's energy left")
    log_snr_bar(axes, mappable, column(frame, "log_snr"))


def _whole_index(axes: Axes, index: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, 1.02 * float(index.max()))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
