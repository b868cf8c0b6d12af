"""The study of the stated recoverable share runs, and its populations have the shares that it says."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from analysis import command_line
from analysis.shares import run
from ntkdiag.process import schedules
from ntkdiag.process.bayes import bayes_share


def test_every_population_gives_a_row_a_target_and_level() -> None:
    config = command_line.settings(run.HERE, "tiny")
    table = run.study(config)
    assert len(table) == 4 * len(config["targets"]) * len(config["log_snr"])
    assert table["wrong_side"].between(0, 1).all() and table["share"].between(0, 1).all()


@pytest.mark.parametrize(
    ("name", "dimensions"), [("white", 2), ("low rank", 32), ("mixture", 2), ("mixture", 64)]
)
def test_the_variance_that_the_truth_rests_on_is_the_samples_own(name: str, dimensions: int) -> None:
    draw, mmse, variance = run.population(name, dimensions, torch.zeros(1, dtype=torch.float64))
    points = draw(100_000, torch.Generator().manual_seed(1))
    assert float(points.var(0).mean()) == pytest.approx(variance, rel=0.02)
    assert 0 < float(bayes_share("x0", schedules.cosine(), torch.zeros(1), mmse, variance)) < 1


def test_the_committed_results_are_on_the_right_side() -> None:
    """At 5% of 200 draws a cell may miss 10 times; among so many cells a few exceed that by chance, none by far."""
    table = pd.read_csv(run.HERE / "results" / "shares.csv")
    assert (table["wrong_side"] <= 0.085).all()
    assert (table["wrong_side"] > 0.05).mean() < 0.02
