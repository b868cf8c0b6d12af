"""`diagnosis.plot()`, `.report()` and `.verify()`: the work of higher rooms as methods of a result."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.report import FIGURES, draw
from ntkdiag.report.statistics import STATISTICS

KEYS = {"bucket", "log_snr", "samples", "extrapolated"}


def denoiser(seed: int) -> nd.Denoiser:
    network = nd.models.build("mlp", (2,), width=8, seed=seed)
    return nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")


@pytest.fixture(scope="module")
def measured() -> nd.Diagnosis:
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    return nd.measure(denoiser(0), points, 4, samples=8, refs={"untrained": denoiser(1)})


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_the_methods_are_those_that_are_offered_and_take_the_same_arguments() -> None:
    for method, source in nd._METHODS.items():
        name, _, attribute = method.partition(".")
        module, _, function = source.partition(":")
        work = inspect.signature(getattr(importlib.import_module(module), function))
        taken = list(inspect.signature(getattr(getattr(nd, name), attribute)).parameters.values())
        asked = list(work.parameters.values())
        variadic = taken[-1].kind is inspect.Parameter.VAR_KEYWORD
        kept = taken[1:-1] if variadic else taken[1:]
        rest = asked[1 + len(kept) :]
        assert [(one.name, one.default, one.kind) for one in kept] == [
            (one.name, one.default, one.kind) for one in asked[1 : 1 + len(kept)]
        ], method
        assert all(variadic and one.kind is inspect.Parameter.KEYWORD_ONLY for one in rest), method


def test_a_diagnosis_that_is_loaded_without_the_root_has_them_too(
    measured: nd.Diagnosis, tmp_path: Path
) -> None:
    measured.save(tmp_path / "measured")
    code = (
        "import sys; from ntkdiag.diagnosis.result import Diagnosis; "
        "assert 'ntkdiag.report' not in sys.modules and 'ntkdiag.claims' not in sys.modules; "
        "print(repr(Diagnosis.load('measured').verify()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith("Verification(")


def test_a_statistic_on_given_axes_is_its_column_with_its_interval(measured: nd.Diagnosis) -> None:
    given = Figure().add_subplot()
    axes = measured.plot("effective_rank", given)
    assert axes is given and not pyplot.get_fignums()
    summary = measured.summary
    trained = axes.lines[0]
    assert np.array_equal(trained.get_xdata(), summary["log_snr"])
    assert np.array_equal(trained.get_ydata(), summary["effective_rank"])
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.min() == summary["effective_rank_low"].min()
    assert corners.max() == summary["effective_rank_high"].max()
    assert axes.get_ylabel() == "effective rank (directions)"
    assert {text.get_text() for text in axes.texts} == {"trained", "untrained"}


def test_new_axes_are_those_that_a_notebook_shows(measured: nd.Diagnosis) -> None:
    axes = measured.plot()
    assert axes is pyplot.gca() and axes.get_ylabel() == "effective rank (directions)"
    assert measured.plot("trace").get_yscale() == "log"


def test_every_statistic_of_the_summary_has_an_axis_with_its_name(measured: nd.Diagnosis) -> None:
    numbers = {
        name
        for name in measured.summary
        if pd.api.types.is_numeric_dtype(measured.summary[name]) and not name.endswith(("_low", "_high"))
    }
    assert numbers - KEYS == set(STATISTICS)
    for name in STATISTICS:
        if measured.summary[name].notna().any():
            axes = Figure().add_subplot()
            assert measured.plot(name, axes).get_ylabel() == STATISTICS[name].label


def test_a_column_of_ones_own_is_drawn_too(measured: nd.Diagnosis) -> None:
    more = nd.Diagnosis(**{**vars(measured), "summary": measured.summary.assign(my_number=-1.0)})
    assert more.plot("my_number", Figure().add_subplot()).get_ylabel() == "my number"


def test_a_figure_of_one_panel_is_drawn_and_others_are_refused(measured: nd.Diagnosis) -> None:
    axes = Figure().add_subplot()
    assert draw(measured, "rarefaction", axes) is axes and axes.get_ylabel() == "effective rank (directions)"
    several = [
        name
        for name, figure in FIGURES.items()
        if figure.panels is not None and figure.draws.name == "diagnosis"
    ]
    assert several
    for name in several:
        with pytest.raises(
            InputError, match=rf"one panel; got \d+ panels\. Write nd\.report\.plot\(diagnosis, '{name}'"
        ):
            draw(measured, name)
    assert not pyplot.get_fignums()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("efective_rank", "Did you mean 'effective_rank'?"),
        ("bucket_", "expected a statistic (loss, trace,"),
        (3, "the name of a statistic, such as 'effective_rank'; got int"),
        ("full_rank", "a diagnosis that has it"),
        ("runs", "expected a statistic"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_figure_is_made(
    measured: nd.Diagnosis, what: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        measured.plot(what)
    assert words in str(caught.value)
    assert not pyplot.get_fignums()


def test_the_theme_is_applied_and_gone_afterwards(measured: nd.Diagnosis) -> None:
    before = pyplot.rcParams["axes.grid"]
    dark = measured.plot("trace", theme="dark").figure.get_facecolor()
    light = measured.plot("trace").figure.get_facecolor()
    assert dark != light and pyplot.rcParams["axes.grid"] == before
    with pytest.raises(InputError, match="theme"):
        measured.plot("trace", theme="pink")


def test_the_page_has_the_answer_of_the_diagnosis(
    measured: nd.Diagnosis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntkdiag.report.page.page.build_page", lambda inputs: inputs.verdicts.text)
    path = measured.report(tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    assert path.read_text() == measured.verify().text == nd.verify(measured).text


def test_a_diagnosis_that_is_too_small_for_an_answer_has_a_page(
    measured: nd.Diagnosis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = SimpleNamespace()
    monkeypatch.setattr(
        "ntkdiag.report.page.page.build_page", lambda inputs: seen.__dict__.update(inputs=inputs) or ""
    )
    small = nd.measure(denoiser(0), torch.randn(9, 2), 2, samples=4)
    small.report(tmp_path / "page.html", runs={})
    assert seen.inputs.verdicts is None and seen.inputs.runs == {}
    with pytest.raises(InputError):
        small.verify()
