"""A statistic or a figure of a diagnosis on the axes of a user, or on new ones: `diagnosis.plot()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ntkdiag.errors import InputError, did_you_mean, require_type
from ntkdiag.report.drawing import theme as themes
from ntkdiag.report.figure_decorator import PANEL_SIZE, ReportFigure
from ntkdiag.report.figures import FIGURES
from ntkdiag.report.figures.summary_column import draw_statistic
from ntkdiag.report.inputs import ReportInputs
from ntkdiag.report.statistics import STATISTICS

if TYPE_CHECKING:
    from typing import Any

    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis


def draw(
    diagnosis: Diagnosis, what: str = "effective_rank", axes: Axes | None = None, *, theme: str = "light"
) -> Axes:
    """Draw a statistic of the summary over log-SNR with its interval, or a figure of one panel.

    Args:
        diagnosis: What was measured; its references are drawn beside it.
        what: A column of `diagnosis.summary`, or a name in `FIGURES`.
        axes: Where to draw; None makes a new matplotlib figure, which a notebook shows.
        theme: "light" or "dark".

    Returns:
        The axes.

    Raises:
        InputError: neither a column of numbers nor a figure, a figure of several panels, nothing to draw, or an unknown
            theme.

    Example:
        >>> axes = nd.report.draw(diagnosis, "effective_rank")
        >>> "log-SNR" in axes.get_xlabel()
        True
    """
    inputs = ReportInputs(diagnosis)
    require_type("what to plot", what, str, "the name of a statistic, such as 'effective_rank'")
    figure = None if _is_statistic(diagnosis.summary, what) else _figure(diagnosis, what)
    part = None if figure is None else figure.draws.take(inputs)
    if figure is not None and figure.panels is not None:
        raise InputError(
            f"figure '{what}'",
            expected="a figure of one panel",
            got=f"{len(figure.panel_names(part))} panels",
            fix=f"Write nd.report.plot(diagnosis, '{what}', '{what}.png').",
        )
    with themes.applied(theme):
        place = _new_axes() if axes is None else axes
        if figure is None:
            draw_statistic(place, diagnosis, what)
        else:
            figure.draw(place, part)
    return place


def _is_statistic(summary: pd.DataFrame, name: str) -> bool:
    return name in summary and pd.api.types.is_numeric_dtype(summary[name])


def _figure(diagnosis: Diagnosis, name: str) -> ReportFigure[Any]:
    if name in FIGURES:
        return FIGURES[name]
    statistics = [column for column in STATISTICS if column in diagnosis.summary]
    raise InputError(
        "what to plot",
        expected="a statistic (" + ", ".join(statistics) + ") or a figure (" + ", ".join(FIGURES) + ")",
        got=repr(name),
        fix=did_you_mean(name, [*statistics, *FIGURES]),
    )


def _new_axes() -> Axes:
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=PANEL_SIZE, layout="constrained")
    return figure.add_subplot()
