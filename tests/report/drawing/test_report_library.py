"""Figures are drawn whatever MPLBACKEND says, and a backend that matplotlib knows stays the user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A figure drawn by the package in a process that has not imported matplotlib, and what is left for the user's pyplot.
SCRIPT = """
import json, os, sys
from ntkdiag.report.drawing import theme
assert "matplotlib" not in sys.modules
with theme.applied("light"):
    from matplotlib.figure import Figure
    Figure().savefig(sys.argv[1])
import matplotlib
print(json.dumps([os.environ.get("MPLBACKEND"), str(matplotlib.rcParams._get("backend"))]))
"""


@pytest.mark.parametrize(
    ("named", "backend"),
    [
        ("bogus", None),
        ("module://matplotlib_inline.backend_inline", "module://matplotlib_inline.backend_inline"),
        ("module://not.installed", "module://not.installed"),
        ("TkAgg", "tkagg"),  # which needs a display that is not there
        ("", None),
        (None, None),
    ],
)
def test_figures_are_drawn_whatever_the_environment_names(
    named: str | None, backend: str | None, tmp_path: Path
) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "a.png"],
        env=kept if named is None else {**kept, "MPLBACKEND": named},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    left, found = json.loads(done.stdout)
    assert left == named
    assert backend is None or found.lower() == backend
