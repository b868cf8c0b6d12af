"""The study of samples at a tiny size, from training to pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.grids import run


def test_from_training_to_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(
        sys, "argv", ["run", "--size", "tiny", "--out", str(out), "--kept", str(tmp_path / "kept")]
    )
    run.main()
    table = pd.read_csv(out / "quality.csv")
    assert table["run"].tolist() == ["unet"] and table["drawn"].tolist() == [100]
    assert table["fd"][0] > table["fd_floor"][0] > 0
    assert table["fd_pixels"][0] > table["fd_pixels_floor"][0] > 0
    for name in ("real-digits", "unet"):
        assert np.load(out / f"{name}.npy").shape == (20, 8, 8)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr("ntkdiag.train.train", lambda *arguments, **more: pytest.fail("trained again"))
    run.main()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
