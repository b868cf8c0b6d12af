"""A training run with refreshed weights that is killed in a process of its own goes on as if nothing had been."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_processes import Command

from ntkdiag.train.checkpoints.checkpoint import Manifest, read_checkpoint, read_manifest

TINY = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1", "--data", "mixture"]
EVERY = 15
OFTEN = ["--batch", "16", "--setting", "log_every=10", "--setting", "checkpoint_every=20"]
# Scores from gradients, so that weights, and with them the network, hang on every refresh before.
REFRESH = ["--weights", f"refresh:{EVERY},score=gsnr,samples=8,buckets=4,half_life=2"]


def manifest_of(process: Command, run: Path, step: int) -> Manifest:
    """The run's first checkpoint at or after a step; fails if the process ends before, or takes minutes."""
    for _ in range(60_000):
        assert process.code is None, process.end()
        if (run / "training.json").exists() and (found := read_manifest(run)).step >= step:
            return found
        time.sleep(0.002)
    raise AssertionError(f"no checkpoint of step {step} after two minutes")


@pytest.fixture
def begun(workspace: Path) -> Iterator[Command]:
    """A run that would go on for hours, with a checkpoint after its second refresh."""
    process = Command(workspace, "train", *TINY, *REFRESH, *OFTEN, "--steps", "1000000", "--out", "run")
    try:
        found = manifest_of(process, workspace / "run", 2 * EVERY)
        assert len(found.weights["history"]) >= 2
        yield process
    finally:
        process.kill()


def test_a_killed_run_resumes_bit_by_bit(begun: Command, call: Any, workspace: Path) -> None:
    begun.send_signal(signal.SIGKILL)
    assert begun.end()[0] == -signal.SIGKILL
    killed_at = read_manifest("run").step
    steps = str(killed_at + 4 * EVERY + 1)
    assert call("train", "--resume", "--out", "run", "--steps", steps).code == 0
    assert not [path for path in workspace.rglob("*") if path.name.startswith(".")]
    assert call("train", *TINY, *REFRESH, *OFTEN, "--steps", steps, "--out", "whole").code == 0

    (resumed, tensors), (whole, expected) = read_checkpoint("run"), read_checkpoint("whole")
    history = resumed.weights["history"]
    assert [record["step"] for record in history] == list(range(EVERY, int(steps), EVERY))
    assert all(record["accepted"] for record in history)
    assert any(record["step"] > killed_at for record in history)
    assert resumed.weights == whole.weights  # table, history and all: JSON keeps every bit of a float
    assert tensors.keys() == expected.keys()
    for name, value in tensors.items():
        assert value.numpy().tobytes() == expected[name].numpy().tobytes(), name
    for name in ("weights.csv", "average.safetensors", "losses.csv"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes(), name


def test_sigterm_saves_a_checkpoint_as_ctrl_c_does(begun: Command, call: Any, workspace: Path) -> None:
    begun.send_signal(signal.SIGTERM)
    code, out, err = begun.end()
    assert code == 143 and out == ""
    assert "ntkdiag train --resume --out run" in err and err.endswith("interrupted\n")
    step = read_manifest("run").step
    assert not [path for path in workspace.rglob("*") if path.name.startswith(".")]
    assert call("train", "--resume", "--out", "run", "--steps", str(step + 1)).code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_folder_that_was_being_built_stays(number: signal.Signals, call: Any, workspace: Path) -> None:
    """SIGTERM leaves none; what SIGKILL leaves is removed by the next command that writes in that place."""
    process = Command(workspace, "demo", "--out", "demo")
    try:
        for _ in range(60_000):
            assert process.code is None, process.end()
            if list(workspace.glob(".demo.*.tmp/constant/training.json")):
                break
            time.sleep(0.002)
        process.send_signal(number)
        code, _, err = process.end()
    finally:
        process.kill()
    assert "Traceback" not in err
    if number == signal.SIGKILL:
        assert len(list(workspace.glob(".demo.*.tmp"))) == 1
        assert call("weights", "--rule", "erd", "--target", "v", "--out", "erd.csv").code == 0
        Path("erd.csv").unlink()
    else:
        assert code == 143
    assert list(workspace.iterdir()) == []
