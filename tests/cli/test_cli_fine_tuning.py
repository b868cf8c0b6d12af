"""Fine-tuning a folder of diffusers' save_pretrained: one command, checked, resumed exactly, and measured afterwards."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cli_cases import QUICKLY, TINY
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    UNet2DModel,
)
from safetensors.torch import load_file

from ntkdiag import data as datasets
from ntkdiag.cli.inputs.loading import load
from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import Diagnosis
from ntkdiag.train import TrainConfig
from ntkdiag.train.checkpoints.checkpoint import read_manifest

SHORT = ["--batch", "8", "--setting", "log_every=2", "--setting", "checkpoint_every=2"]
COUNT = 24


def average(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "average.safetensors")


@pytest.fixture
def dit(workspace: Path) -> list[Any]:
    """A pipeline with a VAE, whose network drops labels itself while it trains, and data for it."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=2, sample_size=16,
        up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5,
    )  # fmt: skip
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        patch_size=2, norm_num_groups=2, num_embeds_ada_norm=3, dropout=0.2,
    )  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    DiTPipeline(network, vae, DDIMScheduler()).save_pretrained(workspace / "pipe")
    shape = (COUNT, 16, 16, 3)
    np.save(workspace / "pictures.npy", np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    np.save(workspace / "labels.npy", np.arange(COUNT) % 3)
    return ["--model", "pipe", "--data", "pictures.npy", "--labels", "labels.npy", *SHORT]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the first sign of progress."""

    @contextmanager
    def bars(enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
        yield lambda stage, done, total: signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("ntkdiag.cli.commands.train.progress_bar", bars)


def test_a_folder_is_trained_on_other_data_and_measured(pipeline: Path, call: Any, workspace: Path) -> None:
    start = dict(UNet2DModel.from_pretrained(pipeline / "unet").state_dict())
    np.save("negated.npy", -datasets.load("digits").train[:150].numpy())
    run = ["train", "--model", pipeline, "--data", "negated.npy"]
    still = ["--steps", "1", "--learning-rate", "0", "--no-load-check", "--batch", "64"]
    assert call(*run, *still, "--out", "still").code == 0
    torch.testing.assert_close(average("still"), start, rtol=1e-6, atol=1e-7)

    found = call(*run, "--steps", "15", "--learning-rate", "1e-3", "--setting", "warmup=0", "--out", "run")
    assert found.code == 0 and "load check: untrained, or trained on other data" in found.err
    assert read_manifest("run").config["batch"] == TrainConfig.preset("fine_tuning").batch
    tuned = average("run")
    assert not any(torch.equal(start[name], tuned[name]) for name in start if name.endswith("weight"))
    again = Denoiser.from_pretrained("run/pretrained")
    torch.testing.assert_close(dict(again.network.state_dict()), tuned, rtol=0, atol=0)
    assert again.schedule == Denoiser.from_pretrained(pipeline).schedule and again.target == "v"
    before, after = (pd.read_csv(f"{name}/losses.csv")["loss"].mean() for name in ("still", "run"))
    assert after < before / 2

    measured = call("measure", "--model", "run", *QUICKLY[:-1], "0", "--out", "mine")
    assert measured.code == 0 and "load check" not in measured.err, measured.err
    meta = Diagnosis.load(workspace / "mine").meta
    assert meta["config"]["target"] == "v" and meta["data"]["name"] == "negated"


def test_a_latent_run_that_was_stopped_ends_as_if_nothing_had_been(
    dit: list[Any], call: Any, workspace: Path, interrupted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = call("train", *dit, "--steps", "5", "--weights", "erd", "--out", "run")
    assert stopped.code == 130 and read_manifest("run").step == 2
    monkeypatch.undo()
    monkeypatch.chdir(workspace)
    torch.manual_seed(5)  # what the network draws comes from the run's seed alone
    assert call("train", "--resume", "--out", "run").code == 0
    assert call("train", *dit, "--steps", "5", "--weights", "erd", "--out", "whole").code == 0
    torch.testing.assert_close(average("run"), average("whole"), rtol=0, atol=0)
    written = DiTTransformer2DModel.from_pretrained("run/pretrained").state_dict()
    torch.testing.assert_close(dict(written), average("run"), rtol=0, atol=0)
    other = call("train", *dit, "--steps", "5", "--weights", "erd", "--seed", "1", "--out", "other")
    assert other.code == 0 and not torch.equal(*(next(iter(average(n).values())) for n in ("run", "other")))

    measured = call("measure", "--model", "run", *QUICKLY, "--out", "mine")
    assert measured.code == 0, measured.err
    meta = Diagnosis.load(workspace / "mine").meta
    assert (
        meta["data"]["shape"] == [4, 8, 8]
        and meta["data"]["digest"] == read_manifest("run").problem["data"]["digest"]
    )
    for command in (
        ["sample", "--label", "1", "--count", "4", "--steps", "2", "--out", "drawn.npy"],
        ["verify"],
    ):
        done = call(command[0], "--model", "run", *command[1:], *(QUICKLY if command == ["verify"] else []))
        assert done.code == 0, done.err


def test_held_out_samples_are_known_to_be_unseen_only_after_fresh_weights(
    dit: list[Any], trained: Path, call: Any, workspace: Path
) -> None:
    """What a folder or a checkpoint was trained on is not known."""
    weights = trained / "average.safetensors"
    assert call("train", *TINY, "--checkpoint", weights, "--steps", "2", *SHORT, "--out", "again").code == 0
    assert call("train", *dit, "--steps", "2", "--out", "run").code == 0
    known = {name: load(ModelOptions(model=str(name))).held_out_unseen for name in (trained, "again", "run")}
    assert known == {trained: True, "again": False, "run": False}


def test_all_pictures_are_trained_on(dit: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntkdiag.adapters.diffusers.MOST", 8)
    assert call("train", *dit, "--steps", "2", "--out", "run").code == 0
    assert call("measure", "--model", "run", *QUICKLY, "--out", "mine").code == 0
    assert "random choice" not in Diagnosis.load("mine").meta["data"]["description"]
    pipe = call("measure", *dit[:6], *QUICKLY, "--out", "pipe-diagnosis")
    assert (
        pipe.code == 0
        and "random choice of 8" in Diagnosis.load("pipe-diagnosis").meta["data"]["description"]
    )


def test_without_labels_the_null_label_is_named(dit: list[Any], call: Any) -> None:
    place = dit.index("--labels")
    del dit[place : place + 2]
    found = call("train", *dit, "--steps", "2", "--out", "run")
    assert (
        found.code == 0 and "got the one that stands for none, 3; --labels FILE.npy gives others" in found.err
    )


def test_a_wrong_scheduler_is_refused_before_anything_is_written(
    pipeline: Path, refused: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    wrong = tmp_path_factory.mktemp("wrong")
    DDPMScheduler(prediction_type="epsilon").save_pretrained(wrong)
    start = ["train", "--model", pipeline, "--scheduler", wrong, *SHORT, "--out", "run"]
    error = refused(*start)
    assert "looks like v at steps 0…999" in error and "--no-load-check" in error


def test_what_cannot_be_trained_is_refused(
    pipeline: Path, refused: Callable[..., str], workspace: Path
) -> None:
    (workspace / "empty").mkdir()
    assert "a folder of save_pretrained" in refused("train", "--model", "empty", "--out", "run")
    assert "--data self" in refused("train", "--model", pipeline, "--data", "self", "--out", "run")
    assert "--schedule: expected nothing beside a folder" in refused(
        "train", "--model", pipeline, "--schedule", "flow", "--out", "run"
    )


def test_a_folder_that_is_gone_or_another_is_named_on_resume(
    dit: list[Any], call: Any, refused: Callable[..., str], workspace: Path
) -> None:
    assert call("train", *dit, "--steps", "2", "--out", "run").code == 0
    config = workspace / "pipe" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"beta_end": 0.03}))
    assert "schedule of the run to resume" in refused("train", "--resume", "--out", "run", "--steps", "4")
    shutil.rmtree(workspace / "pipe")
    assert "pipe" in refused("train", "--resume", "--out", "run", "--steps", "4")
    assert "pipe" in refused("measure", "--model", "run")
