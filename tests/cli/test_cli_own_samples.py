"""--data self: a network in a folder is measured on its own samples, and the answer says what that weakens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import QUICKLY, TINY

from ntkdiag.cli import main
from ntkdiag.diagnosis import Diagnosis


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a class-conditional network on digits."""
    out = tmp_path_factory.mktemp("runs") / "classes"
    options = ("width=8", "depth=1", "heads=2", "classes=10")
    words = [word for option in options for word in ("--model-option", option)]
    steps = ["--steps", "4", "--batch", "8", "--setting", "condition_dropout=0.2", "--setting", "warmup=2"]
    assert main(["train", "--model", "dit", *words, *steps, "--out", str(out)]) == 0
    return out


def test_a_run_is_verified_on_its_own_samples(
    trained: Path, call: Callable[..., Any], workspace: Path
) -> None:
    found = call("verify", "--model", trained, "--data", "self", *QUICKLY, "--out", "mine", "--json")
    assert found.code == 0, found.err
    assert "drawn from the network itself, not from its data" in found.document["text"]
    meta = Diagnosis.load(workspace / "mine" / "diagnosis").meta
    assert meta["data"]["from_network"] and meta["data"]["shape"] == [1, 8, 8]
    assert meta["conditions"]["label"]["shared"] == 10


def test_labels_say_what_is_drawn(trained: Path, call: Callable[..., Any], workspace: Path) -> None:
    np.save("labels.npy", np.arange(12) % 3)
    words = ("measure", "--model", trained, "--data", "self", "--labels", "labels.npy", *QUICKLY)
    found = call(*words, "--out", "mine")
    assert found.code == 0, found.err
    meta = Diagnosis.load(workspace / "mine").meta
    assert (
        meta["data"]["description"].startswith("12 samples drawn")
        and "shared" not in meta["conditions"]["label"]
    )


def test_where_it_cannot_be_it_is_refused(trained: Path, refused: Callable[..., str]) -> None:
    model = TINY[: TINY.index("--data")]
    assert "own_samples(denoiser, count, shape)" in refused("measure", *model, "--data", "self")
    said = refused("measure", "--model", trained, "--data", "self", "--image-size", "8")
    assert "--image-size: expected nothing beside --data self" in said
    said = refused("sample", "--model", trained, "--data", "self", "--out", "x.npy")
    assert "all but measure and verify" in said
    assert "all but measure and verify" in refused("train", *model, "--data", "self", "--out", "run")
