"""Which noise levels help or disturb each other, as a map of every bucket against every other.

Blue: a training step that helps one level also helps the other. Red: it harms the other. White: neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.columns import column, require_finite
from ntkdiag.report.drawing import theme
from ntkdiag.report.drawing.axes import colour_bar
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.formatting import level
from ntkdiag.report.inputs import DIAGNOSIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

MOST_WITH_NUMBERS = 12  # buckets; above it the cells are too small for figures in them


@figure(
    "kernel_coupling",
    draws=DIAGNOSIS,
    group=Group.COUPLING,
    title="Kernel between noise levels",
    caption="1 (dark blue): a training step at one level changes the output at the other just as "
    "much; 0 (white): not at all.",
    size=(5.6, 4.5),
)
def draw_kernel_coupling(axes: Axes, diagnosis: Diagnosis) -> None:
    """Mean kernel between two buckets over the geometric mean of their own: 1 is full sharing."""
    draw_coupling(axes, diagnosis, "kernel", "kernel between levels / within levels")


@figure(
    "gradient_coupling",
    draws=DIAGNOSIS,
    group=Group.COUPLING,
    title="Gradients between noise levels",
    caption="Blue: the two levels change the parameters in the same direction. Red: they work against "
    "each other. Below each number, how far its 90% interval reaches. A dash: that interval contains 0, "
    "or there is none, since the mean gradient of one level cannot be told from noise.",
    size=(5.6, 4.5),
)
def draw_gradient_coupling(axes: Axes, diagnosis: Diagnosis) -> None:
    """Cosine between the mean loss gradients of two buckets, where its sign is known: below zero they conflict."""
    draw_coupling(axes, diagnosis, "gradient_cosine", "cosine of the mean gradients", uncertain=True)


def draw_coupling(
    axes: Axes, diagnosis: Diagnosis, name: str, label: str, *, uncertain: bool = False
) -> None:
    """A column of `diagnosis.coupling` as a square map with a diverging colour map centred at zero.

    Args:
        axes: Where to draw.
        diagnosis: What was measured; a pair given once stands for both orders.
        name: Column with values in [-1, 1]. Estimates outside are shown as the nearest end, NaN as "–".
        label: Colour bar.
        uncertain: The column has an interval in `<name>_low` and `<name>_high`; values whose interval contains 0, or that
            have none, are shown as "–".

    Raises:
        InputError: no value to show.
    """
    from matplotlib import colormaps

    levels, matrix = coupling_matrix(diagnosis, name)
    reach = None
    if uncertain:
        low, high = (coupling_matrix(diagnosis, name + end)[1] for end in ("_low", "_high"))
        matrix = np.where((low > 0) | (high < 0), matrix, np.nan)
        reach = np.maximum(high - matrix, matrix - low)
    require_finite(f"coupling of {name}", matrix.ravel())
    matrix = np.clip(matrix, -1, 1)
    count = len(levels)
    diverging = colormaps["RdBu"].with_extremes(bad=theme.current().grid)
    image = axes.imshow(matrix, cmap=diverging, vmin=-1, vmax=1, origin="lower", interpolation="nearest")
    ticks = range(0, count, max(1, -(-count // MOST_WITH_NUMBERS)))
    names = [level(levels[tick]) for tick in ticks]
    axes.set_xticks(list(ticks), names)
    axes.set_yticks(list(ticks), names)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("log-SNR of one noise level")
    axes.set_ylabel("log-SNR of the other")
    if count <= MOST_WITH_NUMBERS:
        _write_numbers(axes, matrix, reach)
    colour_bar(axes, image, label, ticks=[-1, -0.5, 0, 0.5, 1])


def coupling_matrix(diagnosis: Diagnosis, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Log-SNR of the buckets [B], ascending, and the symmetric matrix [B, B] of a column; NaN where not measured."""
    frame = diagnosis.coupling
    first, second = column(frame, "log_snr_a"), column(frame, "log_snr_b")
    levels = np.unique(np.concatenate([first, second]))
    matrix = np.full((len(levels), len(levels)), np.nan)
    a, b = np.searchsorted(levels, first), np.searchsorted(levels, second)
    matrix[b, a] = column(frame, name)
    matrix[a, b] = column(frame, name)
    return levels, matrix


def _write_numbers(axes: Axes, matrix: np.ndarray, reach: np.ndarray | None) -> None:
    size = 8 if len(matrix) <= 10 else 6.5
    for (row, place), value in np.ndenumerate(matrix):
        text = "–" if np.isnan(value) else f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")
        colour = "white" if abs(value) > 0.6 else "#24292f"
        colour = theme.current().ink if np.isnan(value) else colour
        lift = 0.0 if reach is None or np.isnan(value) else 0.16
        axes.text(place, row + lift, text, ha="center", va="center", fontsize=size, color=colour)
        if lift and reach is not None:
            about = f"±{reach[row, place]:.1f}"
            axes.text(place, row - 0.24, about, ha="center", va="center", fontsize=0.65 * size, color=colour)
