"""The study of throughput at a tiny size, and its arithmetic by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis.fresh_network import fresh_network
from analysis.throughput.run import GOAL, bare_loop, study, summary
from ntkdiag.train import TrainConfig, train


def test_the_study_runs(tmp_path: Path) -> None:
    study("tiny", tmp_path)
    table = pd.read_csv(tmp_path / "blocks.csv")
    assert table.block.tolist() == [0, 1]
    assert (table.filter(regex="_wall|_processor") > 0).all(axis=None)
    assert pd.read_csv(tmp_path / "summary.csv").network.tolist() == ["mlp"]


def test_the_bare_loop_does_the_trainers_work() -> None:
    """Other draws, so its loss over twenty steps is near the trainer's, after a fall to three quarters."""
    start = fresh_network("mlp", {"width": 8, "depth": 1}, "mixture", "v")
    config = TrainConfig(steps=100, batch=512, learning_rate=1e-2, log_every=20)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bare = pd.Series(bare_loop(start, config)(100)).groupby(lambda step: step // 20).mean()
    trainer = train(start.denoiser, start.data, None, config).history.loss
    assert trainer.iloc[-1] < 0.85 * trainer.iloc[0]
    assert bare.tolist() == pytest.approx(trainer.tolist(), rel=0.06)


def test_the_ratio_is_that_of_steps_per_second() -> None:
    row = {"network": "n", "steps": 10, "bare_wall": 1.0, "bare_processor": 0.9, "trainer_processor": 1.0}
    found = summary(pd.DataFrame([row | {"trainer_wall": wall} for wall in (1.0, 2.0, 4.0)])).iloc[0]
    assert (found.ratio_wall, found.wall_low, found.wall_high) == (0.5, 0.375, 0.75)
    assert (found.trainer_ms, found.bare_ms, found.met) == (100.0, 90.0, GOAL <= 0.9)
