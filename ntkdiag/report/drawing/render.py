"""From a figure's name to a drawn figure and its bytes, without touching pyplot or global settings."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag import provenance
from ntkdiag.errors import InputError, require_one_of
from ntkdiag.report.drawing import style
from ntkdiag.report.drawing.figure_spec import FigureSpec
from ntkdiag.report.drawing.material import Material
from ntkdiag.report.drawing.registry import FIGURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ntkdiag.diagnosis import Diagnosis

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
    """Draw one figure into a file, replaced as a whole.

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
    """
    spec = FIGURES[require_one_of("figure", what, FIGURES)]
    path = Path(path)
    form = require_one_of("file type", path.suffix.lower(), FORMATS)[1:]
    provenance.write_bytes(path, render(spec, Material(diagnosis, **parts), form, theme))
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
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    material = Material(diagnosis, **parts)
    written = {}
    for name, spec in FIGURES.items():
        try:
            image = render(spec, material, "png", theme)
        except InputError:
            continue
        written[name] = folder / f"{name}.png"
        provenance.write_bytes(written[name], image)
    return written


def render(spec: FigureSpec, material: Material, form: str = "svg", theme: str = "light") -> bytes:
    """All panels of a figure in one picture.

    Raises:
        InputError: nothing to draw.
    """
    subject = material.subject(spec.subject)
    with style.applied(theme):
        return to_bytes(compose(spec, subject, spec.panel_names(subject)), form)


def render_panels(spec: FigureSpec, material: Material, theme: str = "light") -> Mapping[str | None, bytes]:
    """Every panel of a figure as an SVG of its own with a clear background, so that a page can wrap them.

    Raises:
        InputError: nothing to draw.
    """
    subject = material.subject(spec.subject)
    with style.applied(theme):
        return {
            panel: to_bytes(compose(spec, subject, [panel]), "svg", transparent=True)
            for panel in spec.panel_names(subject)
        }


def compose(spec: FigureSpec, subject: Any, panels: list[str | None]) -> Figure:
    """Draw panels on a new figure, at most `MOST_COLUMNS` side by side.

    Args:
        spec: Which figure.
        subject: What it draws.
        panels: Names of its panels, or [None].

    Raises:
        InputError: nothing to draw.
    """
    from matplotlib.figure import Figure

    columns = 2 if len(panels) == 4 else min(len(panels), MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(spec.size[0] * columns, spec.size[1] * rows), layout="constrained")
    draw = spec.draw()
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        draw(axes, subject) if panel is None else draw(axes, subject, panel)
    return figure


def to_bytes(figure: Figure, form: str, transparent: bool = False) -> bytes:
    """A figure as PNG, SVG or PDF, without dates, so that equal figures give equal bytes."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=DPI, transparent=transparent, metadata=undated.get(form))
    return buffer.getvalue()
