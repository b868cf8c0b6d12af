"""The study of training with ERD weights at a tiny size, its ties, and its arithmetic by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis.erd import run
from analysis.erd.compare import differences, holm
from analysis.erd.quality import frechet
from analysis.erd.rules import RULES, TIES, weights
from ntkdiag import schedules


def test_a_stopped_study_goes_on_with_the_same_cells_and_the_rules_that_are_one_function_tie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.study("tiny", tmp_path)
    whole = (tmp_path / "cells.csv").read_text()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 1 + 2 * 2 * len(RULES)
    ties = pd.read_csv(tmp_path / "ties.csv")
    assert list(ties.target) == list(TIES) and (ties.largest_gap < 1e-5).all()
    # Four cells are missing: exactly these are run, and they come out the same.
    (tmp_path / "cells.csv").write_text("".join(lines[:-4]))
    calls = []
    cell = run.cell
    monkeypatch.setattr(run, "cell", lambda *a: calls.append(a) or cell(*a))
    run.study("tiny", tmp_path)
    assert len(calls) == 4
    assert (tmp_path / "cells.csv").read_text() == whole


@pytest.mark.parametrize("target", TIES)
def test_rules_that_tie_are_one_function(target: str) -> None:
    schedule = schedules.cosine()
    grid = torch.linspace(-15, 15, 31, dtype=torch.float64)
    left, right = (weights(name, target, schedule, 10)[0](grid) for name in TIES[target])
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)


def test_only_rules_without_a_mean_are_clipped() -> None:
    clipped = {
        (target, name)
        for target in ("epsilon", "x0", "v")
        for name in RULES
        if weights(name, target, schedules.cosine(), 10)[1]
    }
    assert clipped == {("epsilon", "debias"), ("x0", "debias"), ("x0", "p2_1_half")}


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_differences_are_paired_by_seed() -> None:
    rows = [
        {"data": "d", "target": "v", "seed": seed, "rule": rule, "quality": value, "loss": value}
        for rule, values in {"constant": (1.0, 5.0, 9.0), "erd": (0.9, 4.7, 8.8)}.items()
        for seed, value in enumerate(values)
    ]
    found = differences(pd.DataFrame(rows)).iloc[0]
    assert found.difference == pytest.approx(-0.2)
    # Student's t for 2 degrees of freedom at 97.5% is 4.3027.
    assert found.high - found.difference == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)


def test_frechet_of_a_shifted_and_scaled_copy() -> None:
    x = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x - x.mean(0)
    # Covariance C against 4 C: tr(C + 4 C - 2 · 2 C) = tr C; the means are 2 apart in one coordinate.
    shift = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    assert frechet(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet(x, 2 * x + shift) == pytest.approx(4 + float(x.T.cov().trace()), rel=1e-9)
