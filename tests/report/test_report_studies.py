"""The pictures of the studies are drawn from the results that the repository holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = sorted((REPOSITORY / "figures").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_study_figure_is_drawn(script: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "picture.png"
    subprocess.run([sys.executable, str(script), "--out", str(out)], check=True, cwd=tmp_path)
    assert out.read_bytes().startswith(b"\x89PNG")
