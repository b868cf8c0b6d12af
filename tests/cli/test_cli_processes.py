"""Commands under torchrun: processes share the samples, the first one prints and writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_cases import QUICKLY, TINY, command
from process_group import ProcessGroup

FAILS = """
import torch
class Net(torch.nn.Linear):
    def forward(self, x, t):
        if (x[:, 0] > 5).any():
            raise ValueError("a sample too large")
        return super().forward(x)
def net():
    return Net(2, 2)
"""


def files(folder: Path) -> set[str]:
    """Names of everything in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_measure_writes_what_one_process_writes(
    two_processes: ProcessGroup, call: Any, workspace: Path
) -> None:
    arguments = ["measure", *TINY, *QUICKLY, "--out"]
    (code, out, _), other = two_processes.run(command, workspace, *arguments, "together")
    assert code == 0
    assert other == (0, "", "")
    assert "Written: together" in out
    assert call(*arguments, "alone").code == 0
    assert files(workspace / "together") == files(workspace / "alone")
    together, alone = (pd.read_csv(workspace / name / "summary.csv") for name in ("together", "alone"))
    columns = ["log_snr", "trace", "effective_rank", "effective_rank_low", "gsnr"]
    pd.testing.assert_frame_equal(together[columns], alone[columns], rtol=1e-4)
    assert {path.name for path in workspace.iterdir()} == {"together", "alone"}  # no parts are left


def test_train_writes_what_one_process_writes_which_can_resume_it(
    two_processes: ProcessGroup, call: Any, workspace: Path
) -> None:
    settings = ["--setting", "log_every=2", "--setting", "accumulate=2", "--batch", "15"]
    arguments = ["train", *TINY, *settings, "--steps", "4", "--out"]
    (code, out, err), other = two_processes.run(command, workspace, *arguments, "together")
    assert code == 0, err
    assert other == (0, "", "")
    assert "Written: together" in out
    assert call(*arguments, "alone").code == 0

    def logged(folder: str) -> set[str]:
        return {name for name in files(workspace / folder) if "tensorboard/" not in name}

    assert logged("together") == logged("alone")
    assert call("train", "--resume", "--out", "together", "--steps", "8").code == 0
    assert call("train", "--resume", "--out", "alone", "--steps", "8").code == 0
    for table in ("history.csv", "losses.csv"):
        together, alone = (pd.read_csv(workspace / name / table) for name in ("together", "alone"))
        columns = [name for name in alone if name != "seconds"]
        pd.testing.assert_frame_equal(together[columns], alone[columns], rtol=1e-5)
    assert {path.name for path in workspace.iterdir()} == {"together", "alone"}


def test_the_precision_that_accelerate_was_asked_for(
    call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert 'mixed_precision = "bf16"' in call("train", *TINY, "--dry-run").out
    assert (
        'mixed_precision = "no"' in call("train", *TINY, "--dry-run", "--setting", "mixed_precision=no").out
    )
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    found = call("train", *TINY, "--dry-run")
    assert found.code == 2
    assert "expected one of no, bf16; got 'fp8'" in found.err


def test_verify_prints_one_document(two_processes: ProcessGroup, workspace: Path) -> None:
    arguments = ["verify", *TINY, *QUICKLY[:-2], "--controls", "0", "--samples", "16", "--json"]
    (code, out, _), other = two_processes.run(command, workspace, *arguments)
    assert code == 0
    assert out.startswith("{")
    assert other == (0, "", "")


def test_an_error_in_the_network_for_a_sample_of_another_process(
    two_processes: ProcessGroup, workspace: Path
) -> None:
    (workspace / "own.py").write_text(FAILS)
    rows = np.zeros((32, 2), dtype=np.float32)
    rows[-16:, 0] = 100
    np.save(workspace / "data.npy", rows)
    arguments = [
        "measure",
        "--model",
        "own.py:net",
        "--data",
        "data.npy",
        "--target",
        "v",
        "--schedule",
        "cosine",
    ]
    first, other = two_processes.run(
        command, workspace, *arguments, "--buckets", "2", "--samples", "16", "--out", "x"
    )
    assert first[0] == other[0] == 2
    assert first[1] == ""
    assert "ValueError: a sample too large" in first[2]
    assert len(first[2].splitlines()) == 1
    assert not (workspace / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "--model", "x"], "measure, verify or train"),
        (["train", *TINY, "--batch", "1", "--out", "x"], "for each of 2 processes"),
        (["measure", *TINY, "--device", "cuda:1"], "--device: expected cuda"),
        (["verify", "--from", "x"], "torchrun: expected a network to measure"),
        (["measure", "--model", "nothing"], "--model"),
    ],
)
def test_what_is_refused(
    two_processes: ProcessGroup, workspace: Path, arguments: list[str], said: str
) -> None:
    (code, out, err), other = two_processes.run(command, workspace, *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
    assert other == (2, "", "")


def test_more_processes_than_cards_are_refused_by_all(
    call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        found = call("measure", *TINY, "--device", "cuda")
        assert found.code == 2
        assert ("a card for each process on this machine, at most 1; got 2 processes" in found.err) == (
            rank == "0"
        )


def test_torchrun(workspace: Path) -> None:
    arguments = ["measure", *TINY, "--buckets", "2", "--samples", "5", "--controls", "0", "--out", "out"]
    environment: dict[str, Any] = os.environ | {"OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = subprocess.run(
        [*launcher, "-m", "ntkdiag", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("Written: out") == 1
    assert len(pd.read_csv(workspace / "out" / "summary.csv")) == 2


def test_the_plan_of_a_measurement_is_printed_and_nothing_measured(call: Any, workspace: Path) -> None:
    found = call("measure", *TINY, *QUICKLY, "--plan", "4")
    assert found.code == 0
    assert "4 processes" in found.out
    assert [line.split("  ")[0] for line in found.out.splitlines()[1:6]] == [
        "predictions", "residual kernel", "trace kernel", "noise of the target", "in all"
    ]  # fmt: skip
    document = call("measure", *TINY, *QUICKLY, "--plan", "4", "--json").document
    assert document["processes"] == 4
    assert document["whole"]["operations"] == sum(part["operations"] for part in document["parts"]) > 0
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["--out", "x"], ["--by", "label"], ["--kernel", "full"], ["--engine", "exact"]]
)
def test_what_a_plan_does_not_count_is_refused(call: Any, workspace: Path, arguments: list[str]) -> None:
    found = call("measure", *TINY, "--plan", "2", *arguments)
    assert found.code == 2
    assert len(found.err.splitlines()) == 1
