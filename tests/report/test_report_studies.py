"""The pictures of the studies are drawn from the results that the repository holds."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = sorted((REPOSITORY / "figures").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_study_figure_is_drawn(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "picture.png"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--out", str(out)])
    runpy.run_path(str(script), run_name="__main__")
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_script_is_drawn_by_an_interpreter_of_its_own(tmp_path: Path) -> None:
    """All of them are alike, and an interpreter starts in seconds."""
    out = tmp_path / "picture.png"
    subprocess.run([sys.executable, str(SCRIPTS[0]), "--out", str(out)], check=True, cwd=tmp_path)
    assert out.read_bytes().startswith(b"\x89PNG")
