"""A number over training steps and log-SNR, as a map: steps across, noise levels up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntkdiag.report.columns import require_finite
from ntkdiag.report.drawing.axes import colour_bar
from ntkdiag.report.formatting import level

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def draw_step_map(
    axes: Axes,
    rows: pd.DataFrame,
    name: str,
    title: str,
    bounds: tuple[float | None, float | None] = (None, None),
) -> None:
    """One column of a table of drift.

    Args:
        axes: Where to draw.
        rows: Columns step, log_snr and `name`; one row each.
        name: What is drawn.
        title: What it is, in words.
        bounds: Of the colours, where they are not those of the data.

    Raises:
        InputError: there is no finite value.
    """
    matrix = rows.pivot(index="log_snr", columns="step", values=name).sort_index()
    values = matrix.to_numpy(dtype=float)
    require_finite(name, values.ravel())
    low, high = bounds
    image = axes.imshow(
        values, cmap="viridis", vmin=low, vmax=high, origin="lower", interpolation="nearest", aspect="auto"
    )
    axes.set_xticks(range(values.shape[1]), [f"{int(step):,}" for step in matrix.columns], rotation=45)
    axes.set_yticks(range(len(values)), [level(value) for value in matrix.index])
    axes.grid(False)
    axes.set_xlabel("training step")
    axes.set_ylabel("log-SNR")
    axes.set_title(title, loc="left")
    colour_bar(axes, image, "")  # the title says what it is
