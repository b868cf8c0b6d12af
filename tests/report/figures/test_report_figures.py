"""Every figure: drawn on given axes, from whole and from broken material, with no text over another."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from ntkdiag.errors import InputError
from ntkdiag.report import FIGURES
from ntkdiag.report import inputs as parts
from ntkdiag.report.drawing import theme as themes
from ntkdiag.report.inputs import ReportInputs
from ntkdiag.report.render import compose


def whole_inputs(cases: SimpleNamespace, diagnosis: SimpleNamespace) -> ReportInputs:
    log_snr = diagnosis.summary["log_snr"].to_numpy()
    return ReportInputs(
        diagnosis, cases.verdicts(), None, cases.runs(log_snr), cases.images(), cases.quality(), cases.trust()
    )


def drawn(name: str, inputs: ReportInputs, theme: str = "light") -> Figure:
    figure = FIGURES[name]
    part = figure.draws.take(inputs)
    with themes.applied(theme):
        return compose(figure, part, figure.panel_names(part))


def texts_of(figure: Figure) -> list[Text]:
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    hidden = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in outside(axis)}
    return [text for text in found if text not in hidden and text.get_color() != "none"]


def outside(axis: Any) -> list[Text]:
    """Tick labels that matplotlib keeps but does not draw: those beyond the limits."""
    low, high = sorted(axis.get_view_interval())
    room = 1e-9 * (low if axis.get_scale() == "log" else high - low)
    ticks = axis.get_major_ticks() + axis.get_minor_ticks()
    gone = [tick for tick in ticks if not low - room <= tick.get_loc() <= high + room or not axis.axes.axison]
    return [label for tick in gone for label in (tick.label1, tick.label2)] + (
        [] if axis.axes.axison else [axis.label]
    )


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_lies_over_another_or_leaves_the_figure(name: str, cases: SimpleNamespace) -> None:
    with themes.applied("light"):
        figure = drawn(name, whole_inputs(cases, cases.diagnosis()))
        figure.draw_without_rendering()
        # Text's own extent: that of an annotation would take in the line to what it names.
        labelled = [(text.get_text(), Text.get_window_extent(text).padded(-1)) for text in texts_of(figure)]
    assert labelled
    clashes = [(a, b) for (a, one), (b, two) in itertools.combinations(labelled, 2) if one.overlaps(two)]
    assert not clashes
    frame = figure.bbox.padded(1)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for _, box in labelled)
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for _, box in labelled)


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_named(name: str, cases: SimpleNamespace) -> None:
    figure = drawn(name, whole_inputs(cases, cases.diagnosis(4)))
    for axes in figure.axes:
        if axes.axison and axes.get_label() != "<colorbar>":
            assert axes.get_xlabel()
            assert axes.get_ylabel() or name == "quality"


def holes(diagnosis: SimpleNamespace) -> None:
    """NaN in every second bucket and in some cells of every table."""
    numbers = [
        name
        for name in diagnosis.summary.columns
        if name not in ("bucket", "samples") and "log_snr" not in name
    ]
    diagnosis.summary = diagnosis.summary.astype(dict.fromkeys(numbers, float))
    diagnosis.summary.loc[::2, numbers] = np.nan
    diagnosis.coupling.loc[::3, ["kernel", "gradient_cosine"]] = np.nan
    diagnosis.spectra.loc[::5, ["eigenvalue", "share"]] = np.nan
    diagnosis.rarefaction["effective_rank_std"] = np.nan
    diagnosis.full.summary.loc[::2, ["effective_rank", "effective_rank_low"]] = np.nan
    diagnosis.full.spectra.loc[::5, ["target_alignment", "residual_alignment"]] = np.nan
    diagnosis.full.density = diagnosis.full.density[diagnosis.full.density["bucket"] > 0]
    diagnosis.full.contraction = diagnosis.full.contraction[diagnosis.full.contraction["bucket"] > 0]
    diagnosis.full.eigenfunctions = diagnosis.full.eigenfunctions.clone()
    diagnosis.full.eigenfunctions[0] = 0


def negative(diagnosis: SimpleNamespace) -> None:
    """Estimates on the wrong side of zero, as unbiased ones can be."""
    for frame in (diagnosis.summary, diagnosis.refs["untrained"].summary):
        frame[["gsnr", "gsnr_low", "gsnr_high"]] -= 0.1
    diagnosis.spectra.loc[diagnosis.spectra["index"] > 20, ["eigenvalue", "share"]] = -1e-9
    diagnosis.coupling["gradient_cosine"] *= 1.7


def open_edges(diagnosis: SimpleNamespace) -> None:
    diagnosis.summary.loc[0, "log_snr_low"] = -np.inf
    diagnosis.summary.loc[len(diagnosis.summary) - 1, "log_snr_high"] = np.inf


def bare(diagnosis: SimpleNamespace) -> None:
    ends = [
        name
        for name in diagnosis.summary.columns
        if name.endswith(("_low", "_high")) and "log_snr" not in name
    ]
    diagnosis.summary = diagnosis.summary.drop(columns=ends)


VARIANTS: dict[str, tuple[dict[str, Any], Callable[[SimpleNamespace], None] | None]] = {
    "no oracle, control or interval": ({"oracle": False, "untrained": False}, bare),
    "one bucket": ({"buckets": 1}, None),
    "two samples, open edges": ({"samples": 2}, open_edges),
    "forty buckets": ({"buckets": 40, "samples": 8}, None),
    "holes": ({}, holes),
    "negative": ({}, negative),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_figure_copes_with_what_is_missing(variant: str, cases: SimpleNamespace) -> None:
    options, change = VARIANTS[variant]
    diagnosis = cases.diagnosis(**options)
    if change is not None:
        change(diagnosis)
    refused = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in [
            name
            for name, spec in FIGURES.items()
            if spec.draws in (parts.DIAGNOSIS, parts.FULL_KERNEL, parts.WEIGHTS)
        ]:
            try:
                figure = drawn(name, ReportInputs(diagnosis))
                if variant not in ("one bucket", "forty buckets"):
                    figure.set_layout_engine("none")  # places are the same as with everything there
                figure.draw_without_rendering()
            except InputError:
                refused.add(name)
    assert refused == ({"excess"} if "no oracle" in variant else set())


def test_figures_without_anything_to_draw_say_so(cases: SimpleNamespace) -> None:
    empty = cases.diagnosis(3)
    empty.summary[["effective_rank", "trace"]] = np.nan
    empty.spectra = empty.spectra.iloc[:0]
    empty.rarefaction = empty.rarefaction.iloc[:0]
    empty.coupling = empty.coupling.iloc[:0]
    for name in ("effective_rank", "trace", "spectra", "spectrum_map", "rarefaction", "kernel_coupling"):
        with pytest.raises(InputError, match="at least one finite value"):
            drawn(name, ReportInputs(empty))
    for name in ("loss_ratio", "quality", "samples"):
        with pytest.raises(InputError, match="got none"):
            drawn(name, ReportInputs(empty))


@pytest.mark.parametrize(
    "name", [name for name, spec in FIGURES.items() if spec.draws in (parts.DIAGNOSIS, parts.FULL_KERNEL)]
)
def test_a_figure_is_drawn_on_the_axes_it_is_given(name: str, diagnosis: SimpleNamespace) -> None:
    """On one of two axes, outside any style block: the other stays empty, rc stays as it was."""
    before = dict(matplotlib.rcParams)
    ours, theirs = Figure().subplots(1, 2)
    figure = FIGURES[name]
    figure.draw(ours, diagnosis, figure.panel_names(diagnosis)[0])
    assert ours.has_data()
    assert not theirs.has_data()
    assert dict(matplotlib.rcParams) == before


def test_drawing_all_figures_never_loads_pyplot() -> None:
    """Nor any state of it: no figure manager, no backend choice."""
    code = """
import sys
sys.path.insert(0, "tests/report")
import report_cases as cases
from ntkdiag.report import FIGURES
from ntkdiag.report.inputs import ReportInputs
from ntkdiag.report.render import compose

diagnosis = cases.make_diagnosis(3)
runs = cases.make_runs(diagnosis.summary["log_snr"].to_numpy())
parts = {"samples": cases.make_points(), "quality": cases.make_quality(), "trust": cases.make_trust()}
inputs = ReportInputs(diagnosis, runs=runs, **parts)
for figure in FIGURES.values():
    part = figure.draws.take(inputs)
    compose(figure, part, figure.panel_names(part))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_hostile_names_are_drawn_as_they_are(cases: SimpleNamespace) -> None:
    """Dollar signs would be formulae and a broken one would raise; a newline would break the layout."""
    bad = "$\\frac{<script>$\nalert(1)</script>"
    log_snr = np.array([-1.0, 1.0])
    runs = {bad: cases.runs(log_snr)["erd"], "constant": cases.runs(log_snr)["constant"]}
    quality = pd.DataFrame({"run": [bad], "metric": [bad], "value": [1.0], "low": [0.5], "high": [2.0]})
    diagnosis = cases.diagnosis(2)
    diagnosis.refs = {bad: diagnosis.refs["untrained"]}
    inputs = ReportInputs(
        diagnosis,
        tables={bad: lambda x: x.exp()},
        runs=runs,
        samples={bad: cases.points()["erd"]},
        quality=quality,
    )
    for name in ("effective_rank", "weights", "loss_ratio", "history", "samples", "quality", "loss"):
        part = FIGURES[name].draws.take(inputs)
        # With the caller's rc, which reads formulae.
        figure = compose(FIGURES[name], part, FIGURES[name].panel_names(part))
        figure.draw_without_rendering()
        shown = [text.get_text() for text in texts_of(figure)]
        assert any("$\\frac{<script>$ alert" in text for text in shown), name
