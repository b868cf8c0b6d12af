"""The study of coverage and the sweep over N, at a tiny size: what they read off, and that the picture can be drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.coverage import cases, run
from analysis.coverage.populations import SPECTRA
from analysis.coverage.sweep import READ, summarised, sweep
from figures import coverage
from ntkdiag.spectra import Interval

TINY = {
    "level": 0.9,
    "populations": list(coverage.POPULATIONS),
    "samples": [8, 16],
    "repeats": 2,
    "extrapolated_repeats": 1,
    "extrapolated_groups": 2,
    "most_extrapolated": 16,
}


def test_naive_is_bound_by_n_and_the_answer_is_the_populations() -> None:
    table = sweep(TINY | {"populations": ["spiked"]})
    assert list(table[table.samples == 8].statistic) == list(READ)[:3]
    assert list(table[table.samples == 16].statistic) == list(READ)
    spectrum = SPECTRA["spiked"]
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


STUDY = json.loads((run.HERE / "config.json").read_text()) | {
    "repeats": {"32": 3},
    "contrast_repeats": {"32": 2},
    "expectation_draws": 100,
    "spectra": ["1/k²"],
    "ratios": [0.0, 3.0],
}


def test_the_study_has_a_row_for_every_statistic_of_the_summary_and_marks_what_is_outside() -> None:
    table = run.study(STUDY)
    assert set(table["case"]) == {"kernel", "gradient", "loss", "contrast"}
    assert {*cases.KERNEL, "gsnr", "loss", "gradient_cosine"} == set(table["statistic"])
    assert set(table["outputs"]) == {"4", "32", "∞"} and set(table["norms"]) == {"light", "heavy"}
    given = table["given"] > 0
    outside = ~table["coverage"].between(run.LOWEST, run.HIGHEST)
    assert ((table["reason"] != "") == (given & outside)).all()
    text = run.report(table)
    assert f"{(table['reason'] != '').sum()} of {len(table)} cells lie outside" in text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"coverage": 0.90}, ""),
        ({"coverage": 0.86}, "within the error"),
        ({"coverage": 0.80}, "too short"),
        ({"coverage": 0.80, "norms": "heavy"}, "large norms"),
        ({"coverage": 0.80, "outputs": "4"}, "four outputs"),
        ({"coverage": 0.98}, "too wide"),
        ({"coverage": 0.98, "population": "flat, 16"}, "first-order"),
        ({"coverage": 0.98, "case": "gradient", "population": "1/k, GSNR 0"}, "no signal"),
        ({"coverage": 0.70, "statistic": "gradient_cosine", "given": 0.3}, "selected"),
        ({"coverage": float("nan"), "given": 0.0}, ""),
    ],
)
def test_reasons(changed: dict, words: str) -> None:
    plain = {"case": "kernel", "population": "1/k", "norms": "light", "outputs": "∞", "statistic": "trace"}
    found = run.reason(pd.Series(plain | {"given": 1.0, "repeats": 500} | changed))
    assert words in found and (found == "") == (words == "")
