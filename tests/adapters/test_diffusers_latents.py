"""Pictures encoded by the VAE of a pipeline's folder: the latents of the formula, each once, and refused in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderTiny,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
)

import ntkdiag as nd
from ntkdiag.errors import InputError

KL = {
    "block_out_channels": (4, 8), "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 2, "latent_channels": 4, "sample_size": 16,
}  # fmt: skip


def kl(**more: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**KL, **more).eval()


def transformer() -> DiTTransformer2DModel:
    torch.manual_seed(1)
    return DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        patch_size=2, norm_num_groups=2, num_embeds_ada_norm=3,
    )  # fmt: skip


def saved(folder: Path, vae: Any) -> Path:
    DiTPipeline(transformer(), vae, DDIMScheduler()).save_pretrained(folder)
    return folder


def pictures(count: int = 7) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("shift", [None, 0.25])
def test_latents_are_those_of_the_formula(tmp_path: Path, shift: float | None) -> None:
    vae, images = kl(scaling_factor=0.5, shift_factor=shift), pictures()
    data = nd.latents(saved(tmp_path / "pipe", vae), images)
    with torch.no_grad():
        means = torch.stack([vae.encode(image[None]).latent_dist.mean[0] for image in images])
    torch.testing.assert_close(data.train[:], (means - (shift or 0.0)) * 0.5, rtol=1e-5, atol=1e-6)
    assert data.shape == (4, 8, 8) and "AutoencoderKL (scaling 0.5, shift" in data.description


def test_latents_with_a_mean_and_a_deviation_for_each_channel(tmp_path: Path) -> None:
    mean, deviation = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    vae = kl(scaling_factor=2.0, latents_mean=mean, latents_std=deviation)
    data = nd.latents(saved(tmp_path / "pipe", vae), pictures())
    with torch.no_grad():
        z = vae.encode(pictures()).latent_dist.mean
    shift, scale = (torch.tensor(one)[:, None, None] for one in (mean, deviation))
    torch.testing.assert_close(data.train[:], (z - shift) * 2 / scale, rtol=1e-5, atol=1e-6)


def flux2(folder: Path, network: str = "Flux2Transformer2DModel") -> Any:
    """A VAE with the statistics of its latents in batch norm, as of Flux 2, beside the config of a network."""
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(**KL).eval()
    vae.bn.running_mean.copy_(torch.linspace(-1, 1, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2, 16))
    vae.save_pretrained(folder / "vae")
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps({"_class_name": network}))
    return vae


def test_latents_normalised_by_batch_norm(tmp_path: Path) -> None:
    vae = flux2(tmp_path)
    data = nd.latents(tmp_path, pictures(3))
    with torch.no_grad():
        z = vae.encode(pictures(3)).latent_dist.mean
        parts = (
            z.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
        )  # channel, row, column
        wanted = vae.bn(parts)  # in eval mode
    torch.testing.assert_close(data.train[:], wanted, rtol=1e-5, atol=1e-6)
    assert data.shape == (16, 4, 4) and "AutoencoderKLFlux2 (running mean and variance)" in data.description


def test_batch_norm_beside_another_network_is_refused_by_name(tmp_path: Path) -> None:
    flux2(tmp_path, "Ideogram4Transformer2DModel")
    said = refused(tmp_path)
    assert "got AutoencoderKLFlux2 beside Ideogram4Transformer2DModel" in said and "latents=True" in said


def test_a_vae_without_a_posterior(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4,
    ).eval()  # fmt: skip
    data = nd.latents(saved(tmp_path / "pipe", vae), pictures(3))
    with torch.no_grad():
        torch.testing.assert_close(data.train[:], vae.encode(pictures(3)).latents, rtol=1e-5, atol=1e-6)


def test_a_picture_is_encoded_when_it_is_drawn_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = AutoencoderKL.encode

    def counted(self: AutoencoderKL, x: torch.Tensor, *rest: Any) -> Any:
        encoded.append(len(x))
        return encode(self, x, *rest)

    monkeypatch.setattr(AutoencoderKL, "encode", counted)
    given = nd.data.as_data(
        pictures(40), labels=torch.arange(40), cond={"row": torch.arange(40.0)}, held_out=0.25
    )
    data = nd.latents(saved(tmp_path / "pipe", kl()), given)
    assert sum(encoded) == 2  # one of each part, for the shape
    first = data.train[[3, 3, 0]]
    assert sum(encoded) == 3 and torch.equal(first[0], first[1])
    assert torch.equal(data.train[:5], data.train[torch.arange(5)]) and sum(encoded) == 6
    assert torch.equal(data.conditions["label"], given.conditions["label"])
    assert len(data.held_out or ()) == 10

    some = nd.latents(tmp_path / "pipe", given, most=12, seed=5)
    assert len(some.train) == 12 and "random choice of 12" in some.description
    assert some.labels is not None and torch.equal(some.labels.float(), some.conditions["row"])
    assert given.labels is not None
    place = {int(label): row for row, label in enumerate(given.labels)}
    torch.testing.assert_close(some.train[4], data.train[place[int(some.labels[4])]], rtol=1e-5, atol=1e-6)


def test_a_pipeline_is_measured_on_pictures(tmp_path: Path) -> None:
    folder = saved(tmp_path / "pipe", kl())
    data = nd.latents(folder, nd.data.as_data(pictures(8), labels=torch.arange(8) % 3))
    denoiser = nd.Denoiser.from_pretrained(folder)
    diagnosis = nd.measure(denoiser, data, 2, samples=6, probes=1)
    ready = nd.data.as_data(data.train[:], labels=data.labels)
    again = nd.measure(denoiser, ready, 2, samples=6, probes=1)
    assert diagnosis.summary["trace"].tolist() == pytest.approx(again.summary["trace"].tolist(), rel=1e-6)
    assert "encoded by AutoencoderKL" in diagnosis.meta["data"]["description"]


def refused(folder: Path, images: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        nd.latents(folder, pictures() if images is None else images)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_encoded_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "pipe", kl())
    config = folder / "vae" / "config.json"
    whole = json.loads(config.read_text())
    said = refused(folder, torch.zeros(4, 4, 8, 8))
    assert "pictures with 3 channels" in said and "latents=True" in said
    assert "got shape [3]" in refused(folder, torch.zeros(4, 3))
    for name, value in {
        "scaling_factor": "many",
        "shift_factor": float("nan"),
        "latents_mean": [0.0] * 4,
    }.items():
        config.write_text(json.dumps(whole | {name: value}))
        assert str(folder / "vae") in refused(folder)
    config.write_text(json.dumps(whole | {"scaling_factor": 0}))
    assert "other than 0" in refused(folder)
    config.write_text(json.dumps(whole | {"_class_name": "os.system"}))
    assert "a model of diffusers in _class_name" in refused(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"vae": ["my_code", "AutoencoderKL"]}))
    assert "expected a vae of diffusers" in refused(folder)
    config.unlink()
    assert "expected a pipeline's folder with vae/" in refused(folder)
