"""Files that are cut short, data of another shape, another network's weights: a line each for train, resume and sample."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_cases import TINY
from data_cases import pixels, write_mnist
from safetensors.torch import save_file

DIT = [
    "--model",
    "dit",
    "--model-option",
    "width=8",
    "--model-option",
    "depth=1",
    "--batch",
    "8",
    "--steps",
    "2",
]
RESUME = ["train", "--resume", "--out", "run", "--steps", "9"]
SAMPLE = ["sample", "--count", "4", "--steps", "1", "--out", "s.npy"]
Refused = Callable[..., str]


def cut(file: Path, whole: bytes) -> list[bytes]:
    """Beginnings of a file: nothing, a part of its header, half, all but the last bytes."""
    return [whole[:count] for count in (0, 5, len(whole) // 2, len(whole) - 7)]


def test_data_that_is_cut_or_has_changed_since(call: Any, refused: Refused, workspace: Path) -> None:
    file = workspace / "mine.npy"
    np.save(file, pixels(20, 4, 4))
    assert call("train", *DIT, "--data", file, "--out", "run").code == 0
    whole = file.read_bytes()
    for part in cut(file, whole):
        file.write_bytes(part)
        for command in (
            RESUME,
            ["train", *DIT, "--data", "mine.npy", "--out", "x"],
            [*SAMPLE, "--model", "run"],
        ):
            assert "mine.npy: expected a whole .npy file" in refused(*command)
    np.save(file, pixels(20, 5, 5))
    for command in (RESUME, [*SAMPLE, "--model", "run"]):
        assert "samples of shape [1, 4, 4], as in training; got [1, 5, 5]" in refused(*command)
    np.save(file, pixels(21, 4, 4))
    assert "digest of the data of the run to resume in run: expected " in refused(*RESUME)
    assert "expected the samples that the run was trained on" in refused(*SAMPLE, "--model", "run")
    file.unlink()
    for command in (RESUME, [*SAMPLE, "--model", "run"]):
        assert "mine.npy: expected an existing file" in refused(*command)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "pt", "mnist"])
def test_other_files_that_are_cut(kind: str, refused: Refused, workspace: Path) -> None:
    array, name = pixels(20, 4, 4), f"mine.{kind}"
    file = workspace / name
    if kind == "npz":
        np.savez(file, samples=array)
    elif kind == "safetensors":
        save_file({"samples": torch.from_numpy(array)}, file)
    elif kind == "pt":
        torch.save(torch.from_numpy(array), file)
    else:
        write_mnist(file, ".gz")
        file = max(file.glob("train-images*"))
    whole = file.read_bytes()
    for part in cut(file, whole):
        file.write_bytes(part)
        assert "expected a whole" in refused("train", *DIT, "--data", name, "--out", "x")
    if kind == "mnist":  # compressed as a whole, cut before that
        file.write_bytes(gzip.compress(gzip.decompress(whole)[:-7]))
        assert "expected a whole" in refused("train", *DIT, "--data", name, "--out", "x")


def test_checkpoints_that_are_cut_or_another_networks(
    call: Any, refused: Refused, workspace: Path, trained: Path
) -> None:
    shutil.copytree(trained, "run")
    wider = [option.replace("width=8", "width=9") for option in TINY]
    assert call("train", *wider, "--steps", "6", "--batch", "16", "--out", "wide").code == 0
    commands = {
        "checkpoint-00000006.safetensors": RESUME,
        "average.safetensors": [*SAMPLE, "--model", "run"],
        "training.json": RESUME,
    }
    for name, command in commands.items():
        file = workspace / "run" / name
        whole = file.read_bytes()
        for part in cut(file, whole):
            file.write_bytes(part)
            assert f"{name}: expected a " in refused(*command)
        shutil.copy(Path("wide", name), file)
        line = refused(*command)
        assert "[9, " in line and "[8, " in line
        file.write_bytes(whole)
    average = "wide/average.safetensors"
    assert "[9, " in refused("train", *TINY, "--checkpoint", average, "--out", "x")
    assert "[9, " in refused(*SAMPLE, *TINY, "--checkpoint", average)
