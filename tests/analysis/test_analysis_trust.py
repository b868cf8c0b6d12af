"""The study of trust at a tiny size, from training to tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.trust import run
from ntkdiag.trust.examination import TABLES


def test_from_training_to_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["run", "--size", "tiny", "--out", str(tmp_path / "out"), "--kept", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", arguments)
    run.main()
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(first) == {f"{name}.csv" for name in TABLES} | {"said.csv"}
    said = pd.read_csv(tmp_path / "out" / "said.csv")
    assert said["about"].tolist() == ["linearity", "drift", "features", "outputs"]
    run.main()  # what is kept is read
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
