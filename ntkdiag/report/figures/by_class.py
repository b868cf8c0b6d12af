"""The kernel class by class: which class loses its rank towards noise, and which classes share a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.columns import column, require_finite
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import colour_bar, log_snr_axis, whole_ticks
from ntkdiag.report.drawing.curves import draw_lines
from ntkdiag.report.drawing.labels import label_line_ends
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.formatting import level
from ntkdiag.report.inputs import BY_CLASS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.claims import ByClass

RANKS = {
    "rank of each class": ("effective_rank", "effective rank (directions)"),
    "rank without the shared answer": ("centred_effective_rank", "effective rank, centred (directions)"),
}
# Lines beyond this number cannot be told from each other.
MOST = 12
_SHARED = "kernel between classes, log-SNR "


def _panels(found: ByClass) -> Sequence[str]:
    levels = np.sort(found.between["log_snr"].unique())
    shown = [levels[0], levels[len(levels) // 2], levels[-1]]
    return [*RANKS, *(f"{_SHARED}{level(one)}" for one in dict.fromkeys(shown))]


@figure(
    "by_class",
    draws=BY_CLASS,
    group=Group.RANK,
    title="Class by class",
    caption="Rank of the kernel within each class (at most twelve are drawn), on the same number of samples of each. Maps: "
    "1 (dark blue) where a training step on one class moves the answers to another as much as to itself, 0 (white) where "
    "not at all, red where it moves them the other way.",
    panels=_panels,
)
def draw_by_class(axes: Axes, found: ByClass, panel: str) -> None:
    """A line for each class over log-SNR, or a map of every class against every other at one noise level."""
    if panel in RANKS:
        _draw_ranks(axes, found, *RANKS[panel])
    else:
        _draw_between(axes, found, panel)
    axes.set_title(panel, loc="left")


def _draw_ranks(axes: Axes, found: ByClass, name: str, label: str) -> None:
    rows = found.classes[found.classes["samples"] > 0].sort_values("log_snr")
    classes = rows["label"].drop_duplicates().sort_values()[:MOST]
    looks = dict(
        zip(map(str, classes), style.lines([f"class {one}" for one in classes]).values(), strict=True)
    )
    own = {str(one): rows[rows["label"] == one] for one in classes}
    lines = {one: (column(part, "log_snr"), column(part, name)) for one, part in own.items()}
    ends = draw_lines(axes, lines, looks, marker_size=3)
    axes.set_ylim(bottom=0)
    whole_ticks(axes)
    log_snr_axis(axes, column(rows, "log_snr"))
    axes.set_ylabel(label)
    label_line_ends(axes, ends)


def _draw_between(axes: Axes, found: ByClass, panel: str) -> None:
    from matplotlib import colormaps

    between = found.between
    place = next(one for one in between["log_snr"].unique() if panel == f"{_SHARED}{level(one)}")
    table = between[between["log_snr"] == place].pivot(index="label_b", columns="label_a", values="kernel")
    values = table.to_numpy(dtype=float)
    require_finite("kernel between classes", values.ravel())
    diverging = colormaps["RdBu"].with_extremes(bad=theme.current().grid)
    image = axes.imshow(
        np.clip(values, -1, 1), cmap=diverging, vmin=-1, vmax=1, origin="lower", interpolation="nearest"
    )
    ticks = list(range(0, len(table), max(1, -(-len(table) // MOST))))
    names = [str(table.index[tick]) for tick in ticks]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("one class")
    axes.set_ylabel("the other")
    colour_bar(axes, image, "kernel between classes / within", ticks=[-1, -0.5, 0, 0.5, 1])
