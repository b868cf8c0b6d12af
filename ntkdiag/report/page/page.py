"""The HTML page, put together: the answer, what was measured and on which data, the results, and where they come from.

It is a single file: figures are embedded as SVG, there is no script, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag import provenance
from ntkdiag.errors import InputError, require_path
from ntkdiag.report.figure_decorator import ReportFigure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.figures import FIGURES
from ntkdiag.report.inputs import QUALITY, ReportInputs, require_measured
from ntkdiag.report.page import appendix, introduction
from ntkdiag.report.page.markup import Html, element, join, picture, table
from ntkdiag.report.page.numbers_legend import legend
from ntkdiag.report.page.stylesheet import STYLESHEET
from ntkdiag.report.page.summary_sentences import summary_sentences
from ntkdiag.report.page.verdicts import verdict_cards
from ntkdiag.report.render import render_panels
from ntkdiag.report.tables import full_table, quality_table, summary_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ntkdiag.claims import Verification
    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.trust import Examination

# Group → what an examination says that belongs there.
_SECTIONS = {Group.TRUST: ("linearity", "drift"), Group.CONTENT: ("features", "outputs")}
# Nothing but this page's own style and pictures, even if a string slipped through unescaped.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(
    path: Path | str,
    diagnosis: Diagnosis,
    *,
    verdicts: Verification | None = None,
    tables: Mapping[str, Callable[[Any], Any]] | None = None,
    runs: Mapping[str, Any] | None = None,
    samples: Mapping[str, np.ndarray] | None = None,
    quality: pd.DataFrame | None = None,
    trust: Examination | None = None,
) -> Path:
    """Write the report of a diagnosis as one self-contained HTML file, whole or not at all.

    Args:
        path: File to write; its folder must exist.
        diagnosis: What was measured.
        verdicts: The answer, as `ntkdiag.verify` returns it.
        tables: Name → weight table; without any, all closed-form rules for the target are shown.
        runs: Name → history (step, loss), or loss per bucket (bucket, log_snr, loss, loss_low, loss_high), or
            {"history": …, "buckets": …}.
        samples: Name → samples [N, 1|3, H, W] in [-1, 1] or [N, 2]; real data is named "data".
        quality: Columns run, metric, value, low, high.
        trust: How far to trust the kernel, and what features and outputs do, as `nd.trust.examine` returns it.

    Returns:
        The path.

    Raises:
        InputError: the file cannot be written.

    Example:
        >>> nd.report.write_page("page.html", diagnosis).name
        'page.html'
    """
    path = require_path("file of the page", path)
    inputs = ReportInputs(diagnosis, verdicts, tables, runs, samples, quality, trust)
    provenance.write_text(path, build_page(inputs))
    return path


def write_answered_page(
    diagnosis: Diagnosis,
    path: Path | str = "page.html",
    *,
    tables: Mapping[str, Callable[[Any], Any]] | None = None,
    runs: Mapping[str, Any] | None = None,
    samples: Mapping[str, np.ndarray] | None = None,
    quality: pd.DataFrame | None = None,
    trust: Examination | None = None,
) -> Path:
    """`write_page` with the diagnosis' own answer, where it is large enough for one."""
    require_measured(diagnosis)
    verdicts = answer_of(diagnosis)
    return write_page(
        path,
        diagnosis,
        verdicts=verdicts,
        tables=tables,
        runs=runs,
        samples=samples,
        quality=quality,
        trust=trust,
    )


def answer_of(diagnosis: Diagnosis) -> Verification | None:
    """The answer from a diagnosis; None if it is too small to say anything."""
    from ntkdiag.claims import verify

    try:
        return verify(diagnosis)
    except InputError:
        return None


def build_page(inputs: ReportInputs) -> Html:
    """The page as text."""
    left_out: dict[str, str] = {}
    figures = {name: _figure(figure, inputs, left_out) for name, figure in FIGURES.items()}
    diagnosis = inputs.diagnosis
    body = element(
        "main",
        introduction.header(diagnosis),
        element("section", element("h2", "What it says"), verdict_cards(_answer(inputs))),
        introduction.measured(diagnosis),
        introduction.on_what(diagnosis),
        _results(inputs, figures),
        appendix.section(diagnosis, _grid(figures, Group.APPENDIX), left_out),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", introduction.title(diagnosis)),
        element("style", Html(STYLESHEET)),
    )
    return Html(f"<!DOCTYPE html>\n{element('html', head, element('body', body), lang='en')}\n")


def _answer(inputs: ReportInputs) -> Verification | None:
    """The answer, beside what an examination says of the steps that the kernel describes."""
    verdicts, trust = inputs.verdicts, inputs.trust
    if verdicts is None or trust is None or "linearity" not in trust.tables:
        return verdicts
    return verdicts.beside(trust)


def _results(inputs: ReportInputs, figures: Mapping[str, Html]) -> Html:
    """Sentences first, then the figures by question, and the numbers."""
    sentences = [element("li", sentence) for sentence in summary_sentences(inputs.diagnosis)]
    parts = [
        element("h2", "Results"),
        element("h3", "At a glance"),
        element("ul", *sentences, class_="sentences"),
    ]
    for group in Group:
        if group is Group.APPENDIX:
            continue
        grid = _grid(figures, group)
        if group is Group.TRAINING and QUALITY.is_given(inputs):
            caption = "Quality of the samples of each run, with intervals"
            grid = join([grid, table(quality_table(QUALITY.take(inputs)), caption, ("run",))])
        if group in _SECTIONS and inputs.trust is not None:
            said = [inputs.trust.said[name] for name in _SECTIONS[group] if name in inputs.trust.said]
            grid = join([*(element("p", text) for text in said), grid])
        if grid:
            parts += [element("h3", group.value), grid]
    numbers = summary_table(inputs.diagnosis, inputs.tables, inputs.runs)
    parts += [element("h3", "In numbers"), table(numbers, legend(numbers.columns, inputs.diagnosis))]
    if inputs.diagnosis.full is not None:
        count = inputs.diagnosis.full.eigenfunctions.shape[1]
        caption = (
            f"The full kernel in numbers. PR: participation ratio. Target in {count}: share of the target's energy in "
            f"the {count} strongest eigenfunctions; the residual likewise."
        )
        parts.append(table(full_table(inputs.diagnosis), caption))
    return element("section", *parts)


def _grid(figures: Mapping[str, Html], group: Group) -> Html:
    drawn = [figures[name] for name, figure in FIGURES.items() if figure.group is group and figures[name]]
    return element("div", *drawn, class_="figures") if drawn else Html("")


def _figure(figure: ReportFigure[Any], inputs: ReportInputs, left_out: dict[str, str]) -> Html:
    """A figure with its caption.

    Empty if the inputs do not contain what it draws; empty as well, with the reason added to `left_out`, if that cannot be
    drawn.
    """
    if not figure.draws.is_given(inputs):
        return Html("")
    part = figure.draws.take(inputs)
    try:
        panels = render_panels(figure, part)
    except InputError as error:
        left_out[figure.title] = str(error)
        return Html("")
    text = f"{figure.title}. {figure.caption}"
    pictures = [picture(images["light"], images["dark"], text) for images in panels.values()]
    caption = element("figcaption", element("h4", figure.title), element("p", figure.caption))
    grid = element("div", *pictures, class_="panels small" if figure.size[0] < 5 else "panels")
    return element("figure", caption, grid, **({"class_": "wide"} if len(pictures) > 1 else {}))
