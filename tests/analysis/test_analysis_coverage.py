"""The sweep over N at a tiny size: what it reads off, and that the picture can be drawn from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.coverage.run import POPULATIONS
from analysis.coverage.sweep import READ, summarised, sweep
from figures import coverage
from ntkdiag.spectra import Interval

TINY = {
    "level": 0.9,
    "populations": list(coverage.POPULATIONS),
    "samples": [8, 16],
    "repeats": 2,
    "draws": 10,
    "extrapolated_repeats": 1,
    "extrapolated_draws": 2,
    "most_extrapolated": 16,
}


def test_naive_is_bound_by_n_and_the_answer_is_the_populations() -> None:
    table = sweep(TINY | {"populations": ["flat + spike"]})
    assert list(table[table.samples == 8].statistic) == list(READ)[:3]
    assert list(table[table.samples == 16].statistic) == list(READ)
    spectrum = POPULATIONS["flat + spike"][1]
    assert spectrum is not None
    pairs = table[table.statistic == "participation_ratio_pairs"]
    assert pairs.truth.to_numpy() == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum())
    naive = table[table.statistic == "participation_ratio"]
    assert (naive.value <= naive.samples).all() and (naive.holds_truth == 0).all()


def test_medians_pass_over_what_has_no_interval() -> None:
    ends = [(1.0, 3.0), (2.0, 6.0), (np.nan, np.nan)]
    found = summarised([Interval(2.0, low, high, 1.0, 0.9, "") for low, high in ends], truth=2.5)
    assert (found["low"], found["high"], found["value"]) == (1.5, 4.5, 2.0)
    assert found["without_interval"] == pytest.approx(1 / 3) and found["holds_truth"] == pytest.approx(2 / 3)


def test_the_picture_is_drawn_from_the_table(tmp_path: Path) -> None:
    sweep(TINY).to_csv(tmp_path / "sweep.csv", index=False)
    coverage.draw(tmp_path, tmp_path / "out" / "a.png")
    assert (tmp_path / "out" / "a.png").read_bytes().startswith(b"\x89PNG")
