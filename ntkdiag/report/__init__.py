"""What a person reads: figures drawn on given axes, tables for a terminal, and one HTML page.

    write_page("report.html", diagnosis, verdicts=…, tables=…, runs=…, samples=…, quality=…)
    plot(diagnosis, "effective_rank", "rank.png")        names: FIGURES
    save_figures("figures/", diagnosis)
    summary_table(diagnosis)                             rows of text

Importing this package loads no matplotlib; the first figure does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ntkdiag.report.drawing.figure_spec import FigureSpec
from ntkdiag.report.drawing.registry import FIGURES

if TYPE_CHECKING:
    from ntkdiag.report.drawing.render import plot, save_figures
    from ntkdiag.report.page.headlines import headlines
    from ntkdiag.report.page.page import write_page
    from ntkdiag.report.tables import Table, summary_table, verdict_table

_LAZY = {
    "Table": "tables",
    "plot": "drawing.render",
    "headlines": "page.headlines",
    "save_figures": "drawing.render",
    "summary_table": "tables",
    "verdict_table": "tables",
    "write_page": "page.page",
}

__all__ = [
    "FIGURES",
    "FigureSpec",
    "Table",
    "headlines",
    "plot",
    "save_figures",
    "summary_table",
    "verdict_table",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ntkdiag.report' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"ntkdiag.report.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
