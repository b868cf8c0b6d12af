"""How far to trust a kernel, and what features and outputs do: the figures of an examined training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.columns import column, require_finite
from ntkdiag.report.drawing.axes import log_axis, log_snr_axis, whole_ticks
from ntkdiag.report.drawing.curves import draw_lines
from ntkdiag.report.drawing.labels import label_line_ends
from ntkdiag.report.drawing.step_map import draw_step_map
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.inputs import TRUST

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ntkdiag.trust import Examination

# Panel of the drift → column of the table.
DRIFT_PANELS = {
    "alignment with the last step": "alignment",
    "effective rank": "effective_rank",
    "effective rank, centred": "centred_effective_rank",
    "share of the shared answer": "shared_share",
}
# Modules that are drawn, evenly over the network.
_MOST_PANELS = 9
# Bounds of the colours, where they are not those of the data.
_BOUNDS = {"alignment": (0.0, 1.0), "shared_share": (0.0, 1.0)}


def _drift_panels(found: Examination) -> Sequence[str]:
    table(found, "drift")
    return list(DRIFT_PANELS)


@figure(
    "drift",
    draws=TRUST,
    group=Group.TRUST,
    title="The kernel along training",
    caption="Training steps across, noise levels up. The first map compares each kernel with that of the last step: 1 is "
    "the same kernel. In the other maps a dark row end is a collapse: look at which step it appears, and whether it stays.",
    panels=_drift_panels,
)
def draw_drift(axes: Axes, found: Examination, panel: str) -> None:
    """One number of the kernel over steps and log-SNR, as a map.

    Raises:
        InputError: the drift was not measured.
    """
    name, rows = DRIFT_PANELS[panel], table(found, "drift")
    draw_step_map(axes, rows, name, panel, _BOUNDS.get(name, (None, None)))


@figure(
    "linear_error",
    draws=TRUST,
    group=Group.TRUST,
    title="How long the kernel describes training",
    caption="Relative error of the linear model after real optimizer steps, the mean over continuations. Below the line the "
    "change of the outputs is predicted within 10%.",
)
def draw_linear_error(axes: Axes, found: Examination) -> None:
    """Error of the linear model over log-SNR, a line for each number of steps.

    Raises:
        InputError: it was not measured.
    """
    import pandas as pd

    means = table(found, "linearity_steps").groupby(["step", "log_snr"])["error"].mean()
    rows = pd.DataFrame(means).reset_index()
    require_finite("linear_error", column(rows, "error"))
    lines = {}
    for step in sorted(rows["step"].unique()):
        own = rows[rows["step"] == step].sort_values("log_snr")
        lines[f"{int(step):,} step{'s' if step > 1 else ''}"] = column(own, "log_snr"), column(own, "error")
    ends = draw_lines(axes, lines)
    axes.axhline(0.1, color="grey", lw=1)
    if (column(rows, "error") > 0).any():
        log_axis(axes, "y")
    log_snr_axis(axes, column(rows, "log_snr"))
    axes.set_ylabel("error / linear change of the outputs")
    label_line_ends(axes, ends)


def _feature_panels(found: Examination) -> Sequence[str]:
    rows = table(found, "features")
    names = rows.loc[rows["network"] == "trained", "module"].astype(str).unique()
    places = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_PANELS)).round().astype(int))
    return [names[place] for place in places]


@figure(
    "feature_rank",
    draws=TRUST,
    group=Group.CONTENT,
    title="How many directions the features have",
    caption="Centred effective rank of the activations of each module, beside the same module of an untrained network and "
    "the noisy input itself: a fall that those share is not learned.",
    panels=_feature_panels,
    size=(4.2, 3.0),
)
def draw_feature_rank(axes: Axes, found: Examination, panel: str) -> None:
    """Centred effective rank of one module over log-SNR, with its controls.

    Raises:
        InputError: features were not measured.
    """
    rows = table(found, "features")
    lines = {
        name: rows[(rows["network"] == name) & ((rows["module"] == panel) | (name == "input"))].sort_values(
            "log_snr"
        )
        for name in ("trained", "untrained", "input")
    }
    _draw_ranks(axes, {name: own for name, own in lines.items() if len(own)}, "centred_effective_rank")
    axes.set_title(panel, loc="left")


@figure(
    "output_rank",
    draws=TRUST,
    group=Group.CONTENT,
    title="How many directions the predictions have",
    caption="Centred effective rank of the predicted x0, beside the best possible prediction and the data: what the best "
    "prediction loses as well is not lost by the network.",
)
def draw_output_rank(axes: Axes, found: Examination) -> None:
    """Rank of predicted x0 over log-SNR.

    Raises:
        InputError: outputs were not measured.
    """
    rows = table(found, "outputs").sort_values("log_snr")
    names = {"trained": "output_rank", "best prediction": "best_rank", "data": "data_rank"}
    lines = {name: rows.assign(rank=rows[key]) for name, key in names.items()}
    _draw_ranks(axes, lines, "rank")


def _draw_ranks(axes: Axes, lines: dict[str, pd.DataFrame], name: str) -> None:
    drawn = {label: (column(one, "log_snr"), column(one, name)) for label, one in lines.items()}
    for _, values in drawn.values():
        require_finite(name, values)
    ends = draw_lines(axes, drawn)
    axes.set_ylim(bottom=0)
    whole_ticks(axes)
    log_snr_axis(axes, np.concatenate([column(one, "log_snr") for one in lines.values()]))
    axes.set_ylabel("effective rank, centred")
    label_line_ends(axes, ends)


def table(found: Examination, name: str) -> pd.DataFrame:
    """A table of an examination.

    Raises:
        InputError: it was not measured.
    """
    if name not in found.tables:
        raise InputError(f"{name} to draw", expected="an examination that has it", got="one without")
    return found.tables[name]
