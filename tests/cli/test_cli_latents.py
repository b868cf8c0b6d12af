"""A pipeline with a VAE and labels, on pictures and on latents: one command, no line of code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_cases import QUICKLY
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

import ntkdiag as nd
from ntkdiag.diagnosis import Diagnosis

COUNT = 20


@pytest.fixture
def here(workspace: Path) -> Path:
    """A folder with a pipeline of three classes, pictures as uint8, and their labels."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=2, sample_size=16,
        up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5,
    )  # fmt: skip
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        patch_size=2, norm_num_groups=2, num_embeds_ada_norm=3,
    )  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    DiTPipeline(network, vae, DDIMScheduler()).save_pretrained(workspace / "pipe")
    shape = (COUNT, 16, 16, 3)
    np.save(workspace / "pictures.npy", np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    np.save(workspace / "labels.npy", np.arange(COUNT) % 3)
    return workspace


MEASURE = ("measure", "--model", "pipe", "--labels", "labels.npy", *QUICKLY)


def test_pictures_are_encoded(here: Path, call: Callable[..., Any]) -> None:
    found = call(*MEASURE, "--data", "pictures.npy", "--out", "mine")
    assert found.code == 0, found.err
    diagnosis = Diagnosis.load(here / "mine")
    assert diagnosis.meta["data"]["shape"] == [4, 8, 8]
    assert "encoded by AutoencoderKL (scaling 0.5, shift 0)" in diagnosis.meta["data"]["description"]

    np.save("latents.npy", nd.latents("pipe", nd.data.as_data("pictures.npy", held_out=0.0)).train[:].numpy())
    ready = call(*MEASURE, "--data", "latents.npy", "--latents", "--out", "same")
    assert ready.code == 0, ready.err
    same = Diagnosis.load(here / "same")
    np.testing.assert_allclose(same.summary["trace"], diagnosis.summary["trace"], rtol=1e-5)


def test_a_pipeline_is_verified_on_pictures(here: Path, call: Callable[..., Any]) -> None:
    found = call("verify", *MEASURE[1:], "--data", "pictures.npy", "--json")
    assert found.code == 0 and found.document["text"], found.err


def test_a_pipeline_draws_its_own_samples(here: Path, call: Callable[..., Any]) -> None:
    found = call(*MEASURE, "--data", "self", "--out", "own")
    assert found.code == 0 and "so it was left out" in found.err, found.err
    meta = Diagnosis.load(here / "own").meta
    assert meta["data"]["from_network"] and meta["data"]["shape"] == [4, 8, 8]


def test_the_null_label_in_place_of_missing_ones_is_named(here: Path, call: Callable[..., Any]) -> None:
    found = call("measure", "--model", "pipe", "--data", "pictures.npy", *QUICKLY, "--out", "none")
    assert found.code == 0, found.err
    assert (
        "note: the data have no label, so the network got the one that stands for none, 3; --labels"
        in found.err
    )
    assert Diagnosis.load(here / "none").meta["conditions"] == {"label": {"default": 3}}
    null = call(
        "measure", "--model", "pipe", "--data", "pictures.npy", *QUICKLY, "--null-label", "3", "--out", "null"
    )
    assert null.code == 0 and "stands for none" not in null.err
    traces = [Diagnosis.load(here / name).summary["trace"] for name in ("null", "none")]
    np.testing.assert_allclose(*traces, rtol=1e-5)
    own = call(*MEASURE, "--data", "pictures.npy", "--out", "own")
    assert own.code == 0 and "stands for none" not in own.err
    assert not np.allclose(Diagnosis.load(here / "own").summary["trace"], traces[0], rtol=1e-3)


def test_what_is_no_picture_is_refused(here: Path, refused: Callable[..., str]) -> None:
    np.save("latents.npy", np.zeros((COUNT, 4, 8, 8), dtype=np.float32))
    assert "--latents says so" in refused(*MEASURE, "--data", "latents.npy")
    assert "--latents: expected nothing" in refused("measure", "--model", "mlp", "--latents")
