"""Figures as files, and how little importing the package costs."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ntkdiag import report
from ntkdiag.errors import InputError
from ntkdiag.report import FIGURES, inputs, plot, render, save_figures
from ntkdiag.report.drawing.theme import applied
from ntkdiag.report.figure_order import ORDER, Group


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot_writes_the_format_of_the_ending(
    ending: str, magic: bytes, diagnosis: SimpleNamespace, tmp_path: Path
) -> None:
    path = plot(diagnosis, "effective_rank", tmp_path / f"rank.{ending}")
    again = plot(diagnosis, "effective_rank", tmp_path / f"again.{ending}")
    assert path.read_bytes().startswith(magic)
    assert path.read_bytes() == again.read_bytes()


def test_the_themes_differ(diagnosis: SimpleNamespace, tmp_path: Path) -> None:
    light = plot(diagnosis, "trace", tmp_path / "light.png").read_bytes()
    dark = plot(diagnosis, "trace", tmp_path / "dark.png", theme="dark").read_bytes()
    assert light != dark


@pytest.mark.parametrize("name", ["kernel_coupling", "spectrum_map", "profile"])
def test_panels_of_a_page_are_what_matplotlib_saves_of_each_theme(
    name: str, diagnosis: SimpleNamespace
) -> None:
    """Though they are laid out in one of them: a square map, a logarithmic colour bar, points with labels."""
    part = inputs.DIAGNOSIS.take(inputs.ReportInputs(diagnosis))
    for panel, images in render.render_panels(FIGURES[name], part).items():
        for theme in ("light", "dark"):
            with applied(theme):
                saved = io.BytesIO()
                drawn = render.compose(FIGURES[name], part, [panel])
                drawn.savefig(saved, format="svg", dpi=200, transparent=True, metadata={"Date": None})
            assert images[theme] == saved.getvalue(), theme


def test_bad_requests_are_refused_in_words(diagnosis: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'effective_rank'"):
        plot(diagnosis, "efective_rank", tmp_path / "a.png")
    with pytest.raises(InputError, match=r"one of \.png, \.svg, \.pdf"):
        plot(diagnosis, "trace", tmp_path / "a.jpeg")
    with pytest.raises(InputError, match="runs to draw: expected runs="):
        plot(diagnosis, "history", tmp_path / "a.png")
    with pytest.raises(InputError, match="writable folder"):
        plot(diagnosis, "trace", tmp_path / "nowhere" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_save_figures_writes_what_can_be_drawn_and_nothing_else(
    cases: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("effective_rank", "excess", "weights", "history", "samples")
    monkeypatch.setattr(render, "FIGURES", {name: FIGURES[name] for name in names})
    folder = tmp_path / "new" / "figures"
    written = save_figures(folder, cases.diagnosis(3, oracle=False), samples=cases.points())
    assert set(written) == {"effective_rank", "weights", "samples"}
    assert sorted(path.name for path in folder.iterdir()) == [
        "effective_rank.png",
        "samples.png",
        "weights.png",
    ]


def test_every_figure_explains_itself_and_has_its_place_in_the_order() -> None:
    assert tuple(FIGURES) == ORDER  # the order lists all of them, group after group
    parts = [
        inputs.DIAGNOSIS, inputs.BY_CLASS, inputs.FULL_KERNEL, inputs.WEIGHTS, inputs.RUNS, inputs.SAMPLES, inputs.QUALITY,
        inputs.TRUST,
    ]  # fmt: skip
    for name, figure in FIGURES.items():
        assert figure.name == name
        assert figure.draws in parts
        assert figure.caption.endswith(".")
        assert figure.title[0].isupper()
    assert {figure.group for figure in FIGURES.values()} == set(Group)


def test_public_names_are_there() -> None:
    for name in report.__all__:
        assert getattr(report, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        report.nonsense  # noqa: B018


def test_importing_loads_nothing_and_listing_the_figures_loads_numpy_alone() -> None:
    code = (
        "import sys, ntkdiag.report as report; heavy = {'matplotlib', 'torch', 'pandas', 'numpy', 'scipy'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "assert list(report.FIGURES); "
        "assert heavy & set(sys.modules) == {'numpy'}, heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
