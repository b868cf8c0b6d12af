"""The refresh study at a tiny size, and its arithmetic by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.refresh.run import EVERY, HERE, LIMIT, study, summary
from ntkdiag.weights.refresh.kernel_probe import PROBED

CONFIG = json.loads((HERE / "config.json").read_text())


def test_the_study_runs_and_every_refresh_is_made(tmp_path: Path) -> None:
    study("tiny", tmp_path)
    table = pd.read_csv(tmp_path / "rounds.csv")
    assert len(table) == 2 and (table.refreshes == 2).all()
    assert (table.refreshing > 0).all() and (table.refreshed > table.refreshing).all()
    assert len(pd.read_csv(tmp_path / "summary.csv")) == 1
    moved = pd.read_csv(tmp_path / "errors.csv").set_index(["score", "cause"]).change
    assert set(moved.index) == {(s, c) for s in PROBED for c in ("sketch", "probe", "batch")}
    # A residual kernel has no probe.
    assert moved["gsnr", "probe"] == moved["gain", "probe"] == 0 < moved["learnability", "probe"]
    little = moved.xs("sketch", level=1)  # of a network of this width little is sketched
    assert little.between(1e-9, 0.01).all()


def test_the_default_is_what_is_measured() -> None:
    full = CONFIG["full"]
    # One refresh in as many steps as lie between two, and no setting but the interval.
    assert full["weights"] == f"refresh:{full['steps']}" == f"refresh:{EVERY}"


def rows(plain: float, long: float) -> pd.DataFrame:
    """Two rounds of 100 steps with one refresh of 2 s."""
    row = {
        "network": "n",
        "without": plain,
        "refreshed": long,
        "beginning": 3.0,
        "refreshing": 2.0,
        "reading": 0.5,
    }
    return pd.DataFrame([{**row, "round": turn, "refreshes": 1} for turn in range(2)])


def test_overhead_and_share_by_hand() -> None:
    (row,) = summary(rows(100.0, 202.5), 100).to_dict("records")
    assert row["overhead"] == pytest.approx(1.025) and row["share"] == pytest.approx(0.0125)
    assert row["refreshing"] == pytest.approx(0.01) and row["reading"] == pytest.approx(0.0025)
    assert row["seconds_a_step"] == pytest.approx(2.0) and row["refresh_in_steps"] == pytest.approx(1.0)
    assert row["beginning_in_steps"] == pytest.approx(1.5)
    assert row["limit"] == LIMIT == 0.015 and row["met"]


def test_a_share_beyond_the_limit_is_said() -> None:
    assert not summary(rows(162.5, 162.5), 100)["met"].iloc[0]
