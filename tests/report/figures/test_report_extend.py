"""A figure in a file of its own, as docs/extend/figure.py shows it, is everywhere at once."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from ntkdiag import cli
from ntkdiag.cli.commands.plot import listed
from ntkdiag.errors import InputError
from ntkdiag.report import FIGURES, Group, figure, inputs, plot, save_figures, write_page
from ntkdiag.report.figure_decorator import unregister

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "docs" / "extend" / "figure.py"


@pytest.fixture
def rank_change() -> Iterator[str]:
    before = list(FIGURES)
    runpy.run_path(str(EXAMPLE))
    yield "rank_change"
    unregister("rank_change")
    assert list(FIGURES) == before


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 40


def test_it_stands_last_in_its_group(rank_change: str) -> None:
    names = list(FIGURES)
    assert names[names.index(rank_change) - 1] == "by_class"
    assert names[names.index(rank_change) + 1] == "trace"


def test_it_draws_what_it_says(rank_change: str, diagnosis: SimpleNamespace) -> None:
    axes = Figure().add_subplot()
    FIGURES[rank_change].draw(axes, diagnosis)
    change = diagnosis.summary["effective_rank"] - diagnosis.refs["untrained"].summary["effective_rank"]
    assert np.array_equal(axes.lines[0].get_ydata(), change)


def test_it_is_plotted_saved_and_on_the_page(
    rank_change: str, diagnosis: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plot(diagnosis, rank_change, tmp_path / "change.png").read_bytes().startswith(b"\x89PNG")
    few = {name: FIGURES[name] for name in ("trace", rank_change)}
    monkeypatch.setattr("ntkdiag.report.render.FIGURES", few)
    monkeypatch.setattr("ntkdiag.report.page.page.FIGURES", few)
    assert rank_change in save_figures(tmp_path / "figures", diagnosis)
    page = write_page(tmp_path / "page.html", diagnosis).read_text()
    assert "<h4>What training changed</h4>" in page
    del diagnosis.refs["untrained"]
    assert "What training changed</b>: figure &#x27;rank_change&#x27;: expected an untrained control" in (
        write_page(tmp_path / "page.html", diagnosis).read_text()
    )


def test_the_command_line_knows_it(rank_change: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", "nowhere", "--what", "rank_chang"]) == 2
    assert "Did you mean 'rank_change'" in capsys.readouterr().err


def test_the_help_of_plot_lists_it() -> None:
    code = f"import runpy; runpy.run_path({str(EXAMPLE)!r})\nfrom ntkdiag.cli import main\nmain(['plot', '--help'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "rank_change" in found.stdout and "effective_rank" in found.stdout


def test_the_names_that_plot_leaves_out_are_those_it_has_no_input_for() -> None:
    missing = (inputs.QUALITY, inputs.SAMPLES, inputs.TRUST)
    assert listed() == [name for name, figure in FIGURES.items() if figure.draws not in missing]


def test_a_name_is_given_once_and_must_exist_to_be_taken_out(rank_change: str) -> None:
    again = figure(rank_change, draws=inputs.DIAGNOSIS, group=Group.RANK, title="Twice", caption="Twice.")
    with pytest.raises(InputError, match="'rank_change', which exists"):
        again(lambda axes, diagnosis: None)
    with pytest.raises(InputError, match="one that exists; got 'nothing'"):
        unregister("nothing")


TYPED = """
from matplotlib.axes import Axes
import pandas as pd
from ntkdiag.report import Group, figure, inputs

@figure("a", draws=inputs.QUALITY, group=Group.RANK, title="A", caption="A.")
def draw_quality(axes: Axes, table: pd.DataFrame) -> None: ...

@figure("b", draws=inputs.RUNS, group=Group.RANK, title="B", caption="B.")
def draw_runs(axes: Axes, table: pd.DataFrame) -> None: ...
"""


def test_a_type_checker_sees_what_a_figure_draws(tmp_path: Path) -> None:
    path = tmp_path / "typed.py"
    path.write_text(TYPED)
    options = [
        "--config-file",
        str(REPOSITORY / "pyproject.toml"),
    ]  # as for the package, whose cache serves it
    command = [sys.executable, "-m", "mypy", *options, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert "Found 1 error" in found.stdout, found.stdout + found.stderr
    assert "typed.py:9" in found.stdout and "incompatible type" in found.stdout
