"""Every example runs from an empty folder at its tiny size, stays short, and leaves something to look at."""

from __future__ import annotations

import runpy
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from ntkdiag.report.figures import FIGURES
from ntkdiag.report.page import page

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = {
    "measure_your_network.py": ["network.html"],
    "weights_for_your_trainer.py": ["weights.html"],
    "refresh_while_training.py": ["refreshed.png"],
    "verify_a_claim.py": ["claims_v.html", "claims_x0.html"],
    "class_conditional.py": ["classes.html", "digits_by_class.png"],
}


def test_every_script_is_run_here_and_is_short() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SCRIPTS)
    for name in SCRIPTS:
        assert len((EXAMPLES / name).read_text().splitlines()) < 40, name


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_writes_what_it_says(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setenv("SIZE", "tiny")
    monkeypatch.chdir(tmp_path)
    # Pages with two figures: all of them are drawn in tests of their own.
    monkeypatch.setattr(page, "FIGURES", {figure: FIGURES[figure] for figure in ("effective_rank", "trace")})
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    printed = capfd.readouterr()
    assert "Warning" not in printed.err
    # As an interpreter does, it may keep quiet about what will change for developers of libraries.
    assert not [one for one in recwarn if not issubclass(one.category, DeprecationWarning)]
    for written in SCRIPTS[name]:
        assert f"look at runs/examples/{written}" in printed.out
        assert written in (EXAMPLES / name).read_text().split('"""')[1]
        content = (tmp_path / "runs" / "examples" / written).read_bytes()
        assert (
            content.startswith(b"\x89PNG")
            if written.endswith(".png")
            else content.count(b"data:image/svg") > 3
        )


def test_the_notebook_runs_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": "tiny", "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(EXAMPLES / "read_a_diagnosis.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    # As for the scripts: the page has two figures.
    few = "from ntkdiag.report.page import page; page.FIGURES = {name: page.FIGURES[name] for name in ('trace', 'weights')}"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(few))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert (tmp_path / "diagnosis.html").exists() and (tmp_path / "weights.csv").exists()
