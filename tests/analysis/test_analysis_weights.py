"""The weights study at a tiny size, its picture, and its comparison by hand."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis.weights.run import agreement, study
from ntkdiag.weights import SCORES, WeightTable, rule

FIGURE = Path(__file__).parents[2] / "figures" / "weights.py"


def test_the_study_writes_a_table_a_score_and_the_picture_is_drawn_from_them(tmp_path: Path) -> None:
    study("tiny", tmp_path)
    assert [score for score in SCORES if not (tmp_path / f"{score}.csv").exists()] == []
    rows = pd.read_csv(tmp_path / "agreement.csv")
    assert len(rows) == 2 * len(SCORES)
    # The amplitude is ERD's own score.
    assert rows.kendall_tau[0] == 1 and rows.closed_form[0].startswith("erd")
    spec = importlib.util.spec_from_file_location("figure_weights", FIGURE)
    assert spec is not None and spec.loader is not None
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    figure.draw(tmp_path, tmp_path / "weights.png")
    assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG")


def test_agreement_by_hand() -> None:
    level = torch.linspace(-4, 4, 5, dtype=torch.float64)
    closed = rule("erd", "x0")
    weight = closed(level) * torch.tensor([1.0, 2.0, 1.0, 0.25, 1.0])
    table = WeightTable(level, weight, "x0", low=weight / 3, high=3 * weight)
    found = agreement(table, closed)
    assert found["largest_ratio"] == pytest.approx(4.0) and found["median_ratio"] == pytest.approx(1.0)
    assert found["inside_interval"] == pytest.approx(0.8)
    assert agreement(WeightTable(level, closed(level), "x0"), closed)["inside_interval"] is None
    assert math.isclose(agreement(WeightTable(level, closed(level), "x0"), closed)["kendall_tau"], 1.0)
