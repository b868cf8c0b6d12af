"""The study of targets and training densities runs from training to verdicts, and keeps what it has measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from analysis.verdicts import run
from analysis.verdicts.networks import Cell, cells, measured, schedule_of

SMALL: dict[str, Any] = json.loads((run.HERE / "config.json").read_text()) | {
    "targets": ["epsilon", "x0", "v"],
    "controls": [100, 101],
    "densities": {"cosine": None, "clean": {"mean": 5, "std": 2}},
    "buckets": {"low": -9, "high": 9, "count": 3},
    "samples": 8,
    "probes": 3,
    "data": {
        "mixture": {
            "densities": ["cosine", "clean"], "network": "mlp", "options": {"width": 8, "depth": 1},
            "steps": 2, "batch": 8, "learning_rate": 0.002,
        }
    },
}  # fmt: skip


def test_from_training_to_verdicts_and_slopes(tmp_path: Path) -> None:
    found = {cell: measured(cell, SMALL, tmp_path, lambda text: None) for cell in cells(SMALL)}
    assert len(found) == 2 + 3 * 2 * 5
    buckets, answers = run.buckets_and_answers(found)
    answers = run.beside_controls(answers, 2)
    assert len(buckets) == 3 * len(found) and len(answers) == 18 * len(found)
    assert set(answers.loc[answers["density"] != "none", "learned"]) <= {"learned", "as before training"}
    verdicts = run.recipes(found)
    assert len(verdicts) == 3 * 2 * 3 * 2
    means = answers.groupby(["target", "density", "end", "statistic"])["effect"].mean()
    rank = verdicts[verdicts["claim"] == "C2 rank"].set_index(["target", "density", "end"])["effect"]
    for key, effect in rank.items():
        assert effect == pytest.approx(means[key][["effective_rank", "participation_ratio_pairs"]].min())
    slopes = run.slopes(buckets, SMALL)
    assert len(slopes) == (2 + 2) * len(run.FOLLOWING)
    assert not run.missing(SMALL, buckets)
    lost = (buckets["target"] == "v") & (buckets["density"] == "clean") & (buckets["seed"] == 3)
    partly = run.missing(SMALL, buckets[~lost])
    assert [(c.target, c.density, c.seed) for c in partly] == [("v", "clean", seed) for seed in range(5)]
    anew, _ = run.buckets_and_answers({cell: found[cell] for cell in partly})
    whole = run.joined(buckets[~lost], anew).sort_values(list(buckets), ignore_index=True)
    pd.testing.assert_frame_equal(whole, buckets.sort_values(list(buckets), ignore_index=True))
    again: list[str] = []
    for cell in cells(SMALL):
        measured(cell, SMALL, tmp_path, again.append)
    assert not again


@pytest.mark.parametrize("density", ["uniform", "clean"])
def test_a_moved_density_leaves_the_path_alone(density: str) -> None:
    config = json.loads((run.HERE / "config.json").read_text())
    moved, plain = schedule_of(density, config), schedule_of("cosine", config)
    level = torch.linspace(-8, 8, 9, dtype=torch.float64)
    assert torch.equal(moved.alpha(level), plain.alpha(level))
    drawn = moved.sample(20_000, torch.Generator().manual_seed(0))
    mean, std = (5.0, 2.0) if density == "clean" else (0.0, 18 / 12**0.5)
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.1)
    assert float(drawn.std()) == pytest.approx(std, rel=0.03)


def test_a_cell_is_kept_under_its_own_name(tmp_path: Path) -> None:
    assert Cell("digits", "v", "clean", 3).folder(tmp_path) == tmp_path / "digits" / "v-clean-3"
