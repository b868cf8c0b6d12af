"""From a figure's name to a file or to bytes, without touching pyplot or matplotlib's global settings."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ntkdiag import provenance
from ntkdiag.errors import InputError, require_one_of, require_path
from ntkdiag.report.drawing import theme as themes
from ntkdiag.report.figure_decorator import ReportFigure
from ntkdiag.report.figures import FIGURES
from ntkdiag.report.inputs import ReportInputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ntkdiag.diagnosis import Diagnosis

T = TypeVar("T")
FORMATS = (".png", ".svg", ".pdf")
DPI = 200  # of PNG files
MOST_COLUMNS = 3  # panels side by side in one file


def plot(
    diagnosis: Diagnosis,
    what: str,
    path: Path | str,
    *,
    theme: str = "light",
    **parts: Any,
) -> Path:
    """Draw one figure into a file; an existing file is replaced only once the new one is complete.

    Args:
        diagnosis: What was measured.
        what: A name in `FIGURES`.
        path: File to write; its ending chooses .png, .svg or .pdf.
        theme: "light" or "dark".
        **parts: tables, runs, samples, quality, as for `write_page`.

    Returns:
        The path.

    Raises:
        InputError: unknown figure, format or theme, or nothing to draw.

    Example:
        >>> nd.report.plot(diagnosis, "effective_rank", "rank.png")  # doctest: +SKIP
    """
    figure = FIGURES[require_one_of("figure", what, FIGURES)]
    path = require_path("file of the figure", path)
    file_type = require_one_of("file type", path.suffix.lower(), FORMATS)[1:]
    part = figure.draws.take(ReportInputs(diagnosis, **parts))
    provenance.write_bytes(path, render(figure, part, file_type, theme))
    return path


def save_figures(
    folder: Path | str, diagnosis: Diagnosis, *, theme: str = "light", **parts: Any
) -> dict[str, Path]:
    """Write every figure for which there is something to draw as `<folder>/<name>.png`.

    Args:
        folder: Made if missing.
        diagnosis, theme, parts: As for `plot`.

    Returns:
        Name → file, of those written.

    Raises:
        InputError: the folder cannot be written to.

    Example:
        >>> written = nd.report.save_figures("figures", diagnosis)
        >>> written["trace"].name
        'trace.png'
    """
    folder = require_path("folder", folder)
    inputs = ReportInputs(diagnosis, **parts)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, figure in FIGURES.items():
        try:
            image = render(figure, figure.draws.take(inputs), "png", theme)
        except InputError:
            continue
        written[name] = folder / f"{name}.png"
        provenance.write_bytes(written[name], image)
    return written


def render(figure: ReportFigure[T], part: T, file_type: str = "svg", theme: str = "light") -> bytes:
    """All panels of a figure in one picture.

    Args:
        figure: Which figure.
        part: What it draws, `figure.draws.take(inputs)`.
        file_type: png, svg or pdf.
        theme: "light" or "dark".

    Raises:
        InputError: nothing to draw.
    """
    with themes.applied(theme):
        return to_bytes(compose(figure, part, figure.panel_names(part)), file_type)


def render_panels(figure: ReportFigure[T], part: T, theme: str = "light") -> Mapping[str | None, bytes]:
    """Every panel of a figure as an SVG of its own on a transparent background, so that a page can wrap them.

    Raises:
        InputError: nothing to draw.
    """
    with themes.applied(theme):
        return {
            panel: to_bytes(compose(figure, part, [panel]), "svg", transparent=True)
            for panel in figure.panel_names(part)
        }


def compose(figure: ReportFigure[T], part: T, panels: list[str | None]) -> Figure:
    """Draw panels on a new matplotlib figure, at most `MOST_COLUMNS` side by side.

    Args:
        figure: Which figure.
        part: What it draws.
        panels: Names of its panels, or [None].

    Raises:
        InputError: nothing to draw.
    """
    from matplotlib.figure import Figure

    columns = 2 if len(panels) == 4 else min(len(panels), MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    canvas = Figure(figsize=(figure.size[0] * columns, figure.size[1] * rows), layout="constrained")
    for place, panel in enumerate(panels):
        figure.draw(canvas.add_subplot(rows, columns, place + 1), part, panel)
    return canvas


def to_bytes(canvas: Figure, file_type: str, transparent: bool = False, dpi: int = DPI) -> bytes:
    """A matplotlib figure as PNG, SVG or PDF, without dates, so that equal figures give equal bytes."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}}
    buffer = io.BytesIO()
    metadata = undated.get(file_type)
    canvas.savefig(buffer, format=file_type, dpi=dpi, transparent=transparent, metadata=metadata)
    return buffer.getvalue()
