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
_UNDATED: Mapping[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "ModDate": None},
}


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


def render_panels(figure: ReportFigure[T], part: T) -> Mapping[str | None, Mapping[str, bytes]]:
    """Every panel of a figure as an SVG in each theme, on a transparent background, so that a page can wrap them.

    A theme has colours of its own and nothing else, so the layout, the larger part of the work, is computed once a panel.

    Returns:
        Panel → name of a theme → SVG.

    Raises:
        InputError: nothing to draw.
    """
    return {panel: _in_every_theme(figure, part, panel) for panel in figure.panel_names(part)}


def _in_every_theme(figure: ReportFigure[T], part: T, panel: str | None) -> Mapping[str, bytes]:
    images: dict[str, bytes] = {}
    placed: Figure | None = None
    for theme in themes.THEMES:
        with themes.applied(theme):
            canvas = compose(figure, part, [panel])
            if placed is None or len(placed.axes) != len(canvas.axes):
                _lay_out(canvas)
                placed = canvas
            else:
                _lay_out_like(canvas, placed)
            images[theme] = _transparent_svg(canvas)
    return images


def _lay_out(canvas: Figure) -> None:
    """Place the axes of a figure as saving it as SVG would."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(canvas)  # the layout measures texts as they come out in an SVG
    canvas.set_dpi(72)
    engine = canvas.get_layout_engine()
    assert engine is not None  # `compose` gives every figure one
    engine.execute(canvas)
    canvas.set_layout_engine("none")  # or every drawing would do it again


def _lay_out_like(canvas: Figure, other: Figure) -> None:
    """Place the axes of a figure, colour bars among them, where those of another are that was laid out."""
    canvas.set_layout_engine("none")
    for axes, there in zip(canvas.axes, other.axes, strict=True):
        axes.set_position(there.get_position(original=True))
        axes.set_anchor(there.get_anchor())
        axes.set_box_aspect(there.get_box_aspect())


def _transparent_svg(canvas: Figure) -> bytes:
    """What `savefig(format="svg", transparent=True)` writes of a figure that is laid out, without laying it out again."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas.set_dpi(DPI)  # of the pictures within
    for patch in (canvas.patch, *(axes.patch for axes in canvas.axes)):
        patch.set(facecolor="none", edgecolor="none")
    buffer = io.BytesIO()
    FigureCanvasSVG(canvas).print_svg(buffer, metadata=_UNDATED["svg"])
    return buffer.getvalue()


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


def to_bytes(canvas: Figure, file_type: str, dpi: int = DPI) -> bytes:
    """A matplotlib figure as PNG, SVG or PDF, without dates, so that equal figures give equal bytes."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format=file_type, dpi=dpi, metadata=_UNDATED.get(file_type))
    return buffer.getvalue()
