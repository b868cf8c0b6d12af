"""Models of diffusers: how each family is called, and what its scheduler says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from ntkdiag.adapters.diffusers.packing import pack, unpack
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError

ATTENTION = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1}
TEXT = {"encoder_hidden_states": torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))}
POOLED = {"pooled_projections": torch.randn(2, 10, generator=torch.Generator().manual_seed(1))}
MASK = {"encoder_attention_mask": torch.ones(2, 5)}
Case = tuple[Callable[[], Any], tuple[int, ...], dict[str, Tensor]]


def conditioned_unet() -> Any:
    return diffusers.UNet2DConditionModel(
        8, 4, 4, block_out_channels=(32, 32), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, cross_attention_dim=12, attention_head_dim=4,
    )  # fmt: skip


def dit(**options: Any) -> Any:
    return diffusers.DiTTransformer2DModel(
        **ATTENTION, in_channels=1, out_channels=2, sample_size=8, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=1,
        **options,
    )  # fmt: skip


def pixart() -> Any:
    return diffusers.PixArtTransformer2DModel(
        **ATTENTION, in_channels=4, out_channels=8, sample_size=8, patch_size=2, cross_attention_dim=16, caption_channels=12,
        use_additional_conditions=False,
    )  # fmt: skip


def sd3() -> Any:
    return diffusers.SD3Transformer2DModel(
        **ATTENTION, sample_size=8, patch_size=2, in_channels=4, joint_attention_dim=12, caption_projection_dim=16,
        pooled_projection_dim=10, out_channels=4,
    )  # fmt: skip


def flux(guidance: bool = False) -> Any:
    return diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=12, pooled_projection_dim=10, guidance_embeds=guidance, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def flux2() -> Any:
    return diffusers.Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=12, timestep_guidance_channels=8, axes_dims_rope=(4, 4, 4, 4),
    )  # fmt: skip


def wan() -> Any:
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=12,
        freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
    )  # fmt: skip


def ltx() -> Any:
    return diffusers.LTXVideoTransformer3DModel(
        **ATTENTION, in_channels=4, out_channels=4, cross_attention_dim=16, caption_channels=12
    )


def cogvideo() -> Any:
    return diffusers.CogVideoXTransformer3DModel(
        **ATTENTION, in_channels=4, out_channels=4, time_embed_dim=4, text_embed_dim=12, sample_width=8, sample_height=8,
        sample_frames=5, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=5,
    )  # fmt: skip


FAMILIES: dict[str, Case] = {
    "UNet2DCondition": (conditioned_unet, (4, 8, 8), TEXT),
    "DiT": (dit, (1, 8, 8), {"label": torch.tensor([1, 2])}),
    "PixArt": (pixart, (4, 8, 8), TEXT),
    "SD3": (sd3, (4, 8, 8), TEXT | POOLED),
    "Flux": (flux, (4, 8, 8), TEXT | POOLED),
    "Flux2": (flux2, (16, 4, 3), TEXT),
    "Wan": (wan, (4, 2, 8, 8), TEXT),
    "LTX": (ltx, (4, 2, 8, 8), TEXT | MASK),
    "CogVideoX": (cogvideo, (2, 4, 8, 8), TEXT),
}


def scheduler(name: str) -> Any:
    if name in ("SD3", "Flux", "Flux2", "Wan", "LTX"):
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.DDPMScheduler()


def noisy(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_prediction_is_that_of_the_models_own_call(name: str) -> None:
    build, shape, cond = FAMILIES[name]
    torch.manual_seed(0)
    model = build().eval()
    denoiser = Denoiser.from_diffusers(model, scheduler(name))
    x, level = noisy(shape), torch.tensor([-1.0, 2.0])
    time = denoiser.schedule.time(level)
    own = {"class_labels" if key == "label" else key: value for key, value in cond.items()}
    with torch.no_grad():
        found = denoiser(x, level, cond)
        if name == "Flux":
            places = torch.tensor([[0, row, column] for row in range(4) for column in range(4)]).float()
            patches = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(2, 16, 16)
            out = model(
                patches, timestep=time / 1000, img_ids=places, txt_ids=torch.zeros(5, 3), **own
            ).sample
            wanted = out.reshape(2, 4, 4, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
        elif name == "Flux2":
            one = torch.zeros(1)
            out = model(
                x.reshape(2, 16, 12).transpose(1, 2),
                timestep=time / 1000,
                img_ids=torch.cartesian_prod(one, torch.arange(4.0), torch.arange(3.0), one),
                txt_ids=torch.cartesian_prod(one, one, one, torch.arange(5.0)),
                guidance=torch.full((2,), 3.5),
                **own,
            ).sample
            wanted = out.reshape(2, 4, 3, 16).permute(0, 3, 1, 2)
        elif name == "LTX":
            out = model(
                x.permute(0, 2, 3, 4, 1).reshape(2, -1, 4),
                timestep=time,
                num_frames=2,
                height=8,
                width=8,
                **own,
            )
            wanted = out.sample.reshape(2, 2, 8, 8, 4).permute(0, 4, 1, 2, 3)
        elif name == "PixArt":
            wanted = model(
                x, timestep=time, added_cond_kwargs={"resolution": None, "aspect_ratio": None}, **own
            ).sample
        else:
            wanted = model(x, timestep=time, **own).sample
    torch.testing.assert_close(found, wanted[:, : shape[0]] if name in ("DiT", "PixArt") else wanted)


def test_a_dit_without_labels_gets_that_of_no_class() -> None:
    denoiser = Denoiser.from_diffusers(dit().eval(), diffusers.DDPMScheduler())
    x = noisy((1, 8, 8))
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x, 0.0), denoiser(x, 0.0, {"label": torch.tensor([10, 10])}))
        assert not torch.equal(denoiser(x, 0.0), denoiser(x, 0.0, torch.tensor([1, 2])))


def test_distilled_networks_get_their_guidance() -> None:
    model = flux(guidance=True).eval()
    x, cond = noisy((4, 8, 8)), TEXT | POOLED
    with torch.no_grad():
        usual = Denoiser.from_diffusers(model, scheduler("Flux"))(x, 0.0, cond)
        low = Denoiser.from_diffusers(model, scheduler("Flux"), guidance=1.0)(x, 0.0, cond)
        given = Denoiser.from_diffusers(model, scheduler("Flux"))(
            x, 0.0, cond | {"guidance": torch.full((2,), 1.0)}
        )
    assert not torch.equal(usual, low)
    torch.testing.assert_close(low, given)
    with pytest.raises(InputError, match="takes no guidance"):
        Denoiser.from_diffusers(flux(), scheduler("Flux"), guidance=1.0)


def test_patches_are_undone() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    assert torch.equal(unpack(pack(x), 2, 3), x)
    with pytest.raises(InputError, match="even sides"):
        Denoiser.from_diffusers(flux(), scheduler("Flux"))(noisy((4, 7, 8)), 0.0, TEXT | POOLED)


def test_missing_and_unknown_conditions_are_named() -> None:
    denoiser = Denoiser.from_diffusers(sd3(), scheduler("SD3"))
    with pytest.raises(InputError, match="got none of the name pooled_projections"):
        denoiser(noisy((4, 8, 8)), 0.0, TEXT)
    with pytest.raises(InputError, match="got colour"):
        denoiser(noisy((4, 8, 8)), 0.0, TEXT | POOLED | {"colour": torch.zeros(2)})


class Linear(torch.nn.Module):
    """Remembers how it was called."""

    seen: tuple[Tensor, Tensor]

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> Tensor:
        self.seen = (sample, timestep)
        return sample


SCHEDULERS: dict[str, tuple[Any, str, float]] = {
    "epsilon": (diffusers.DDPMScheduler(), "epsilon", 1.0),
    "sample": (diffusers.DDPMScheduler(prediction_type="sample"), "x0", 1.0),
    "v": (diffusers.DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), "v", 1.0),
    "Euler": (diffusers.EulerDiscreteScheduler(), "epsilon", 1.0),
    "EDM": (diffusers.EDMEulerScheduler(sigma_data=0.5), "F", 1.0),
    "EDM with v": (diffusers.EDMEulerScheduler(sigma_data=0.5, prediction_type="v_prediction"), "F", -1.0),
    "flow": (diffusers.FlowMatchEulerDiscreteScheduler(), "flow", 1.0),
    "inverted flow": (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "flow", -1.0),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_say_target_sign_time_and_scale(name: str) -> None:
    object_, target, sign = SCHEDULERS[name]
    network = Linear()
    denoiser = Denoiser.from_diffusers(network, object_)
    x, level = noisy((1, 2, 2)), torch.tensor([-1.0, 2.0])
    prediction = denoiser(x, level)
    sample, time = network.seen
    assert denoiser.target == target
    torch.testing.assert_close(prediction, sign * sample)
    sigma = torch.exp(-level / 2)
    if "EDM" in name:
        torch.testing.assert_close(sample, x / (sigma**2 + 0.25).sqrt()[:, None, None, None])
        torch.testing.assert_close(time, sigma.log() / 4)
    else:
        torch.testing.assert_close(sample, x)
        own = denoiser.schedule.time(level)
        torch.testing.assert_close(time, 1000 - own if name == "inverted flow" else own)


def test_integer_timesteps_for_tables_of_embeddings() -> None:
    network = Linear()
    Denoiser.from_diffusers(network, diffusers.DDPMScheduler(), timesteps="integer")(noisy((1, 2, 2)), 0.0)
    assert network.seen[1].dtype == torch.int64
    with pytest.raises(InputError, match="timesteps: expected one of continuous, integer"):
        Denoiser.from_diffusers(network, diffusers.DDPMScheduler(), timesteps="whole")


def test_what_is_no_such_model_or_target_is_refused() -> None:
    with pytest.raises(InputError, match="an argument sample or hidden_states"):
        Denoiser.from_diffusers(torch.nn.Linear(2, 2), diffusers.DDPMScheduler())
    with pytest.raises(InputError, match="'epsilon' says"):
        Denoiser.from_diffusers(Linear(), diffusers.DDPMScheduler(), target="v")
    consistency = diffusers.CMStochasticIterativeScheduler()
    with pytest.raises(InputError, match="prediction_type does not say it"):
        Denoiser.from_diffusers(Linear(), consistency)
    assert Denoiser.from_diffusers(Linear(), consistency, target="F").target == "F"


@pytest.mark.parametrize("classes", [None, 4])
def test_a_unet_takes_the_labels_of_data_only_if_it_has_classes(classes: int | None) -> None:
    model = diffusers.UNet2DModel(
        8, 1, 1, block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1, norm_num_groups=2, num_class_embeds=classes,
    )  # fmt: skip
    denoiser = Denoiser.from_diffusers(model.eval(), diffusers.DDPMScheduler())
    labels = {"label": torch.tensor([1, 2])}
    found = denoiser.conditions_from(labels)
    assert list(found) == ([] if classes is None else ["label"])
    with torch.no_grad():
        wanted = model(
            noisy((1, 8, 8)),
            denoiser.schedule.time(torch.zeros(2)),
            class_labels=None if classes is None else labels["label"],
        ).sample
        torch.testing.assert_close(denoiser(noisy((1, 8, 8)), 0.0, found or None), wanted)
