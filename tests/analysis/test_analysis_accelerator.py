"""The accelerator study on the CPU at a tiny size: that the script is ready, not what a card does."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis.accelerator import card, run
from ntkdiag.kernel.streaming.contraction import contract

METER = card.Meter(torch.device("cpu"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accelerator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run", "--device", "cpu", "--size", "tiny", "--out", str(out)])
        run.main()
    return out


def test_every_study_writes_its_table(results: Path) -> None:
    names = {path.name for path in results.iterdir()}
    assert names == {"machine.json", "profile.txt", *(f"{name}.csv" for name in run.STUDIES)}
    assert "aten::" in (results / "profile.txt").read_text()


def test_accuracy_stands_beside_time(results: Path) -> None:
    table = pd.read_csv(results / "precision.csv").set_index(["precision", "way"])
    error = table.relative_error
    assert error["float32", "exact"] < 1e-5
    assert error["float32", "torch.func"] < 1e-5
    assert 1e-4 < error["bfloat16", "exact"] < 0.1
    assert pd.isna(error["TF32", "training step"])
    assert (table.warm_seconds > 0).all()


def test_times_stand_beside_a_training_step(results: Path) -> None:
    for name, column in (("tiles", "steps"), ("growth", "steps"), ("measure", "steps_of_all_samples")):
        assert (pd.read_csv(results / f"{name}.csv")[column] > 0).all()


def test_tile_size_and_tf32_are_put_back_after_an_error() -> None:
    kept, before = dict(contract.TILE_BYTES), torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), METER.precision(not before), run.tile_size(METER.device, 1):
        assert contract.TILE_BYTES["cpu"] == 1024**2
        assert torch.backends.cuda.matmul.allow_tf32 is not before
        raise KeyError
    assert kept == contract.TILE_BYTES
    assert torch.backends.cuda.matmul.allow_tf32 is before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run"])
    with pytest.raises(SystemExit, match="--device cpu --size tiny"):
        run.main()
