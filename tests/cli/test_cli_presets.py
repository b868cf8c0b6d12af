"""`ntkdiag train --preset`: whole runs from a file, with everything open to change, and `--dry-run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import TINY, snapshot
from data_cases import write_idx

from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.train import Preset
from ntkdiag.train.checkpoints.checkpoint import read_manifest

SMALL = ["--model-option", "width=8", "--model-option", "depth=1", "--model-option", "heads=2"]


@pytest.fixture
def fashion(workspace: Path) -> Path:
    """Six pictures of 28×28 and two to test, as Debian's package lays Fashion-MNIST."""
    folder = workspace / "fashion-mnist"
    folder.mkdir()
    for part, count in (("train", 6), ("t10k", 2)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28)).astype("u1")
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count).astype("u1") % 10)
    return folder


def test_a_preset_trains_with_everything_that_it_says(call: Any, workspace: Path) -> None:
    assert call("train", "--preset", "digits", *SMALL, "--steps", "2", "--batch", "4", "--out", "a").code == 0
    manifest = read_manifest("a")
    recipe = manifest.notes["recipe"]
    assert (recipe["model"], recipe["data"], recipe["schedule"]) == ("dit", "digits", "cosine")
    assert recipe["model_options"] == {"width": 8, "depth": 1, "heads": 2}
    assert (manifest.config["learning_rate"], manifest.config["batch"]) == (2e-3, 4)


def test_fashion_is_read_as_debian_lays_it(call: Any, fashion: Path) -> None:
    small = ["--model-option", "channels=4", "--steps", "1", "--batch", "2", "--out", "run"]
    assert call("train", "--preset", "fashion", "--data", fashion, *small).code == 0
    manifest = read_manifest("run")
    assert manifest.problem["data"]["shape"] == [1, 28, 28]
    assert manifest.problem["conditions"] == {"label": manifest.problem["conditions"]["label"]}
    assert manifest.notes["recipe"]["model_options"]["multipliers"] == [1, 2, 2]
    assert manifest.config["condition_dropout"] == 0.1


def test_a_dry_run_prints_a_preset_of_the_same_run_and_writes_nothing(call: Any, workspace: Path) -> None:
    given = [
        *TINY,
        "--weights",
        "min_snr:gamma=2.5",
        "--seed",
        "3",
        "--batch",
        "8",
        "--setting",
        "gradient_clip=none",
    ]
    plan = call("train", *given, "--steps", "3", "--dry-run")
    assert plan.code == 0 and snapshot(workspace) == {}
    assert "# 442 parameters; 24 samples, " in plan.out
    Path("plan.toml").write_text(plan.out)
    assert call("train", *given, "--steps", "3", "--out", "straight").code == 0
    assert call("train", "--preset", "plan.toml", "--out", "planned").code == 0
    for name in ("average.safetensors", "losses.csv"):
        assert Path("straight", name).read_bytes() == Path("planned", name).read_bytes()
    again = call("train", "--preset", "plan.toml", "--dry-run")
    assert again.out.partition("#")[0] == plan.out.partition("#")[0]


def test_a_dry_run_says_what_a_preset_cannot(call: Any, workspace: Path, trained: Path) -> None:
    weights = trained / "average.safetensors"
    plan = call("train", *TINY, "--checkpoint", weights, "--dry-run")
    assert f"\n# beside it: --checkpoint {weights}\n" in plan.out


def test_a_rule_with_a_broken_number_resumes(call: Any, workspace: Path) -> None:
    run = ["train", *TINY, "--weights", "min_snr:gamma=2.5", "--batch", "8"]
    assert call(*run, "--steps", "1", "--out", "run").code == 0
    assert call("train", "--resume", "--steps", "2", "--out", "run").code == 0


def test_a_dry_run_in_json(call: Any, workspace: Path) -> None:
    document = call("train", *TINY, "--steps", "3", "--dry-run", "--json").document
    assert document["preset"]["network"] == {"name": "mlp", "options": {"width": 8, "depth": 1}}
    assert document["preset"]["process"]["target"] == "v"
    assert document["preset"]["training"]["steps"] == 3
    assert document["cost"]["samples"] == 3 * 256


def recipe(name: str, **given: Any) -> Any:
    from ntkdiag.cli.inputs.preset_recipe import preset_recipe

    return preset_recipe(ModelOptions(**given), Preset.named(name))


def test_what_belongs_together_is_replaced_together(workspace: Path) -> None:
    np.save("mine.npy", np.zeros((4, 3, 32, 32), dtype=np.float32))
    assert recipe("fashion").model_options["channels"] == 32
    assert recipe("fashion", model_option=["channels=8"]).model_options["multipliers"] == [1, 2, 2]
    assert recipe("fashion", model="dit").model_options == {}
    assert recipe("fashion", data="digits").data_options == {}
    assert recipe("images", data="mine.npy").data_options == {"image_size": [32, 32]}
    assert recipe("images", data="mine.npy", image_size="16").data_options == {"image_size": [16, 16]}
    assert recipe("digits", target="epsilon").target == "epsilon"
    flow = recipe("digits", schedule="flow")
    assert (flow.schedule, flow.target) == ("flow", "v")
    own = recipe("digits", model="package.module:function")
    assert (own.schedule, own.target, own.data) == (None, None, "digits")


def test_what_a_preset_cannot_do_is_refused(refused: Callable[..., str], workspace: Path) -> None:
    assert "--data: expected your data" in refused("train", "--preset", "images", "--out", "run")
    assert "--preset: expected one of digits, fashion" in refused(
        "train", "--preset", "cifar", "--out", "run"
    )
    assert "mine.toml" in refused("train", "--preset", "mine.toml", "--out", "run")
    assert "--out: expected a folder, or --dry-run" in refused("train", *TINY)
    for option in ("--resume", "--force"):
        assert f"{option}: expected nothing beside --dry-run" in refused("train", *TINY, "--dry-run", option)
    assert "--out: expected nothing beside --dry-run" in refused("train", *TINY, "--dry-run", "--out", "run")
