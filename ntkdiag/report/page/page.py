"""One HTML page that a person wants to read: what was measured, on what, what it says, and where it is from.

It is a single file: figures lie in it as SVG, there is no script, and nothing is loaded from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag import provenance
from ntkdiag.errors import InputError
from ntkdiag.report.drawing.figure_spec import FigureSpec
from ntkdiag.report.drawing.material import Material
from ntkdiag.report.drawing.registry import FIGURES, GROUPS
from ntkdiag.report.drawing.render import render_panels
from ntkdiag.report.page import about, appendix
from ntkdiag.report.page.headlines import headlines
from ntkdiag.report.page.markup import Html, element, join, picture, table
from ntkdiag.report.page.stylesheet import STYLESHEET
from ntkdiag.report.page.verdicts import verdict_cards
from ntkdiag.report.tables import full_table, quality_table, summary_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ntkdiag.diagnosis import Diagnosis

# Nothing but this page's own style and pictures, even if a string slipped through unescaped.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(
    path: Path | str,
    diagnosis: Diagnosis,
    *,
    verdicts: pd.DataFrame | None = None,
    tables: Mapping[str, Callable[[Any], Any]] | None = None,
    runs: Mapping[str, Any] | None = None,
    samples: Mapping[str, np.ndarray] | None = None,
    quality: pd.DataFrame | None = None,
) -> Path:
    """Write the report of a diagnosis as one self-contained HTML file, whole or not at all.

    Args:
        path: File to write; its folder must exist.
        diagnosis: What was measured.
        verdicts: A row a claim, as `ntkdiag.verify` returns it.
        tables: Name → weight table; without any, all closed-form rules for the target are shown.
        runs: Name → history (step, loss), or loss per bucket (bucket, log_snr, loss, loss_low, loss_high), or
            {"history": …, "buckets": …}.
        samples: Name → samples [N, 1|3, H, W] in [-1, 1] or [N, 2]; real data is named "data".
        quality: Columns run, metric, value, low, high.

    Returns:
        The path.

    Raises:
        InputError: the file cannot be written.
    """
    material = Material(diagnosis, verdicts, tables, runs, samples, quality)
    provenance.write_text(path, build_page(material))
    return Path(path)


def build_page(material: Material) -> Html:
    """The page as text."""
    left_out: dict[str, str] = {}
    figures = {name: _figure(spec, material, left_out) for name, spec in FIGURES.items()}
    body = element(
        "main",
        about.header(material.diagnosis),
        about.measured(material.diagnosis),
        about.on_what(material.diagnosis),
        _says(material, figures),
        appendix.section(material.diagnosis, _grid(figures, "more"), left_out),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", about.title(material.diagnosis)),
        element("style", Html(STYLESHEET)),
    )
    return Html(f"<!DOCTYPE html>\n{element('html', head, element('body', body), lang='en')}\n")


def _says(material: Material, figures: Mapping[str, Html]) -> Html:
    """Verdicts first, then sentences, the figures by question, and the numbers."""
    parts = [element("h2", "What it says"), verdict_cards(material.verdicts)]
    sentences = [element("li", sentence) for sentence in headlines(material.diagnosis)]
    parts += [element("h3", "At a glance"), element("ul", *sentences, class_="readings")]
    for group, heading in GROUPS.items():
        grid = _grid(figures, group)
        if group == "training" and material.quality is not None and len(material.quality):
            caption = "Quality of the samples of each run, with intervals"
            grid = join([grid, table(quality_table(material.quality), caption, ("run",))])
        if grid:
            parts += [element("h3", heading), grid]
    numbers = summary_table(material.diagnosis, material.tables, material.runs)
    caption = "Everything above in numbers, noisiest level first. PR: participation ratio. GSNR: gradient signal / noise."
    parts += [element("h3", "In numbers"), table(numbers, caption)]
    if material.diagnosis.full is not None:
        parts.append(
            table(full_table(material.diagnosis), "The full kernel in numbers. PR: participation ratio.")
        )
    return element("section", *parts)


def _grid(figures: Mapping[str, Html], group: str) -> Html:
    drawn = [figures[name] for name, spec in FIGURES.items() if spec.group == group and figures[name]]
    return element("div", *drawn, class_="figures") if drawn else Html("")


def _figure(spec: FigureSpec, material: Material, left_out: dict[str, str]) -> Html:
    """A figure with its caption; empty, and the reason noted, where what was handed in cannot be drawn."""
    if not material.has(spec.subject):
        return Html("")
    try:
        light = render_panels(spec, material, "light")
        dark = render_panels(spec, material, "dark")
    except InputError as error:
        left_out[spec.title] = str(error)
        return Html("")
    pictures = [picture(light[panel], dark[panel], f"{spec.title}. {spec.caption}") for panel in light]
    caption = element("figcaption", element("h4", spec.title), element("p", spec.caption))
    panels = element("div", *pictures, class_="panels small" if spec.size[0] < 5 else "panels")
    return element("figure", caption, panels, **({"class_": "wide"} if len(pictures) > 1 else {}))
