"""What a person reads: figures drawn on given axes, tables for a terminal, and one HTML page.

    write_page("report.html", diagnosis, verdicts=…, tables=…, runs=…, samples=…, quality=…)
    plot(diagnosis, "effective_rank", "rank.png")        names: FIGURES
    draw(diagnosis, "effective_rank", axes)              also names of columns of the summary
    save_figures("figures/", diagnosis)
    summary_table(diagnosis)                             rows of text
    @figure("my_figure", …)                              a figure of your own, on the page and everywhere else

Importing this package loads neither numpy nor matplotlib; FIGURES loads numpy, and drawing loads matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ntkdiag.errors import explain_calls
from ntkdiag.report import inputs
from ntkdiag.report.figure_decorator import ReportFigure, figure
from ntkdiag.report.figure_order import Group

if TYPE_CHECKING:
    from ntkdiag.report.figures import FIGURES
    from ntkdiag.report.on_axes import draw
    from ntkdiag.report.page.page import write_page
    from ntkdiag.report.page.summary_sentences import summary_sentences
    from ntkdiag.report.render import plot, save_figures
    from ntkdiag.report.tables import Table, summary_table

_LAZY = {
    "FIGURES": "figures",
    "Table": "tables",
    "draw": "on_axes",
    "plot": "render",
    "save_figures": "render",
    "summary_sentences": "page.summary_sentences",
    "summary_table": "tables",
    "write_page": "page.page",
}

__all__ = [
    "FIGURES",
    "Group",
    "ReportFigure",
    "Table",
    "draw",
    "figure",
    "inputs",
    "plot",
    "save_figures",
    "summary_sentences",
    "summary_table",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ntkdiag.report' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"ntkdiag.report.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


explain_calls(__name__, "diagnosis.report('page.html'), or nd.report.write_page('page.html', diagnosis)")
