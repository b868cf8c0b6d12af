"""`ntkdiag train`: weights by every name, Ctrl-C, and going on exactly where it was."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ntkdiag.train.checkpoints.checkpoint import read_manifest
from ntkdiag.weights import WeightTable

TINY = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1", "--data", "mixture"]
SHORT = ["--batch", "16", "--setting", "log_every=2", "--setting", "checkpoint_every=2"]
REFRESH = "refresh:3,samples=8,probes=1,buckets=3"


def average(folder: str) -> bytes:
    return (Path(folder) / "average.safetensors").read_bytes()


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the first sign of progress."""

    @contextmanager
    def bars(enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
        yield lambda stage, done, total: signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("ntkdiag.cli.commands.train.progress_bar", bars)


def test_a_run_leaves_what_later_commands_need(call: Any, workspace: Path) -> None:
    result = call(
        "train", *TINY, "--weights", "erd", "--steps", "4", *SHORT, "--seed", "3", "--out", "deep/run"
    )
    assert result.code == 0 and result.err == ""
    folder = workspace / "deep" / "run"
    assert {"average.safetensors", "history.csv", "losses.csv", "training.json", "weights.csv"} <= {
        path.name for path in folder.iterdir()
    }
    losses = pd.read_csv(folder / "losses.csv")
    assert list(losses.columns) == ["bucket", "log_snr", "samples", "loss", "loss_low", "loss_high"]
    assert ((losses.loss_low < losses.loss) & (losses.loss < losses.loss_high)).all()
    manifest = read_manifest(folder)
    assert manifest.config["steps"] == 4 and manifest.config["seed"] == 3 and manifest.config["batch"] == 16
    assert manifest.config["learning_rate"] == 2e-3  # of the preset that goes with the mixture
    assert manifest.notes["weights"] == "erd"
    assert "deep/run" in result.out


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(call: Any, workspace: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert call("train", *TINY, "--steps", "3", *SHORT, "--seed", seed, "--out", name).code == 0
    assert average("a") == average("b") != average("c")


def test_weights_by_name_parameter_file_and_nothing(call: Any, workspace: Path) -> None:
    assert (
        call("weights", "--rule", "min_snr", "--option", "gamma=2", "--target", "v", "--out", "mine.csv").code
        == 0
    )
    chosen = {
        "none": [],
        "constant": ["--weights", "constant"],
        "erd": ["--weights", "erd"],
        "two": ["--weights", "min_snr:gamma=2"],
        "five": ["--weights", "min_snr"],
        "file": ["--weights", "mine.csv"],
    }
    for name, given in chosen.items():
        assert call("train", *TINY, "--steps", "3", *SHORT, *given, "--out", name).code == 0
    assert average("none") == average("constant")
    assert average("two") == average("file")
    assert len({average(name) for name in ("none", "erd", "two", "five")}) == 4
    assert not (workspace / "none" / "weights.csv").exists()
    kept = WeightTable.load(workspace / "two" / "weights.csv")
    assert kept.name == "min_snr(gamma=2)"


def test_a_table_is_brought_to_mean_one(call: Any, workspace: Path) -> None:
    header = "# format: ntkdiag weight table 1\n# name: large\n# target: v\nlog_snr,weight\n"
    (workspace / "large.csv").write_text(header + "-20,300\n20,300\n")
    assert call("train", *TINY, "--steps", "3", *SHORT, "--weights", "large.csv", "--out", "large").code == 0
    assert WeightTable.load("large/weights.csv").weight.tolist() == pytest.approx([1.0, 1.0])


def test_weights_that_follow_the_training_are_kept(call: Any, workspace: Path) -> None:
    result = call("train", *TINY, "--steps", "6", *SHORT, "--weights", REFRESH, "--out", "run", "--json")
    assert result.code == 0
    assert [record["step"] for record in result.document["refreshes"]] == [3, 6]
    assert all(record["accepted"] for record in result.document["refreshes"])
    assert WeightTable.load("run/weights.csv").weight.tolist() == result.document["refreshes"][-1]["weight"]
    history = read_manifest("run").weights["history"]
    assert [record["step"] for record in history] == [3, 6]


def test_weights_that_follow_the_losses_are_kept(call: Any, workspace: Path) -> None:
    assert call("train", *TINY, "--steps", "3", *SHORT, "--weights", "learned", "--out", "run").code == 0
    kept = WeightTable.load("run/weights.csv")
    assert kept.name == "learned" and kept.weight.max() > kept.weight.min()


def test_a_failed_refresh_is_reported(call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ntkdiag.errors import MeasurementError

    def failing(*arguments: object, **more: object) -> Callable[[], Any]:
        def score() -> Any:
            raise MeasurementError("nothing to see")

        return score

    monkeypatch.setattr("ntkdiag.weights.refresh.kernel_probe.probe_score", failing)
    result = call("train", *TINY, "--steps", "3", *SHORT, "--weights", REFRESH, "--out", "run")
    assert result.code == 0
    assert "stayed as they were at step 3: MeasurementError: nothing to see" in result.err


@pytest.mark.parametrize("weights", ["erd", REFRESH])
def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_been(
    call: Any, workspace: Path, interrupted: None, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    arguments = ["train", *TINY, "--weights", weights, "--steps", "8", *SHORT]
    stopped = call(*arguments, "--out", "run")
    assert stopped.code == 130 and stopped.out == ""
    assert "ntkdiag train --resume --out run" in stopped.err and stopped.err.endswith("interrupted\n")
    assert "Traceback" not in stopped.err
    assert 0 < read_manifest("run").step < 8
    assert not (workspace / "run" / "average.safetensors").exists()
    monkeypatch.undo()
    monkeypatch.chdir(workspace)
    assert call("train", "--resume", "--out", "run").code == 0
    assert call(*arguments, "--out", "whole").code == 0
    assert average("run") == average("whole")
    assert read_manifest("run").weights == read_manifest("whole").weights


def test_an_unfinished_run_is_not_yet_a_model(
    call: Any, refused: Callable[..., str], workspace: Path, interrupted: None
) -> None:
    call("train", *TINY, "--steps", "8", *SHORT, "--out", "run")
    line = refused("measure", "--model", "run")
    assert "unfinished" in line and "--resume --out run" in line


def test_resume_can_train_for_longer_but_not_otherwise(
    call: Any, refused: Callable[..., str], workspace: Path
) -> None:
    start = ["train", *TINY, "--weights", "erd", *SHORT]
    assert call(*start, "--steps", "4", "--out", "run").code == 0
    for given in (
        ["--batch", "8"],
        ["--weights", "constant"],
        ["--seed", "2"],
        ["--model", "mlp"],
        ["--target", "v"],
    ):
        assert f"{given[0]}: expected nothing beside --resume" in refused(
            "train", "--resume", "--out", "run", *given
        )
    assert "at least the 4 already done" in refused("train", "--resume", "--out", "run", "--steps", "2")
    assert call("train", "--resume", "--out", "run", "--steps", "6").code == 0
    assert call(*start, "--steps", "6", "--out", "whole").code == 0
    assert average("run") == average("whole")


def test_a_run_that_starts_from_a_checkpoint_resumes_from_it(
    call: Any, trained: Path, workspace: Path
) -> None:
    weights = trained / "average.safetensors"
    start = ["train", *TINY, "--checkpoint", weights, *SHORT]
    assert call(*start, "--steps", "2", "--out", "run").code == 0
    assert call("train", "--resume", "--out", "run", "--steps", "4").code == 0
    assert call(*start, "--steps", "4", "--out", "whole").code == 0
    assert average("run") == average("whole")


def test_a_training_folder_is_not_a_network_to_train(refused: Callable[..., str], trained: Path) -> None:
    line = refused("train", "--model", trained, "--out", "out")
    assert "--resume" in line and "--checkpoint" in line


def test_force_replaces_a_run(call: Any, workspace: Path) -> None:
    assert call("train", *TINY, "--steps", "2", *SHORT, "--out", "run").code == 0
    assert call("train", *TINY, "--steps", "3", *SHORT, "--out", "run").code == 2
    assert read_manifest("run").step == 2
    assert call("train", *TINY, "--steps", "3", *SHORT, "--out", "run", "--force").code == 0
    assert read_manifest("run").step == 3


def test_a_loss_that_is_no_number_is_a_failed_run(call: Any, workspace: Path) -> None:
    result = call("train", *TINY, "--learning-rate", "1e30", "--steps", "30", *SHORT, "--out", "run")
    assert result.code == 1
    assert re.match(r"error: training: expected a finite loss.*; got loss .* at step \d+\.", result.err)
    assert result.err.count("\n") == 1


def test_json_is_one_document(call: Any, workspace: Path) -> None:
    result = call("train", *TINY, "--steps", "2", *SHORT, "--out", "run", "--json")
    assert result.document["step"] == 2 and len(result.document["losses"]) == 10
    assert result.document["written"] == "run"
    assert json.loads(result.out) == result.document
