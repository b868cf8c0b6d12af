"""Conditions of diffusers' models: the kernel is that of a hand-written call with each sample's own labels or text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.kernel import gram

TEXT = torch.randn(3, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([2, 0, 3])


def unet() -> Any:
    return diffusers.UNet2DModel(
        8, 1, 1, block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1, norm_num_groups=2, num_class_embeds=4,
    )  # fmt: skip


def text_unet() -> Any:
    return diffusers.UNet2DConditionModel(
        8, 1, 1, block_out_channels=(8, 8), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=2,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, cross_attention_dim=12, attention_head_dim=4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "name", "argument", "values"),
    [
        (unet, "label", "class_labels", LABELS),
        (text_unet, "encoder_hidden_states", "encoder_hidden_states", TEXT),
    ],
)
def test_the_kernel_is_that_of_each_samples_own_condition(
    build: Callable[[], Any], name: str, argument: str, values: Tensor
) -> None:
    torch.manual_seed(0)
    model = build().double().eval()
    read = Denoiser.from_diffusers(model, diffusers.DDPMScheduler())

    def call(inner: Any, x: Tensor, log_snr: Tensor, cond: Tensor) -> Tensor:
        return inner(x, read.schedule.time(log_snr), **{argument: cond}).sample

    by_hand = Denoiser(model, read.schedule, "epsilon", call=call)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine = gram(read, x, 0.0, cond={name: values}, probes=2, check=False).matrix
    theirs = gram(by_hand, x, 0.0, cond=values, probes=2, check=False).matrix
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=0)
    rolled = gram(read, x, 0.0, cond={name: values.roll(1, 0)}, probes=2, check=False).matrix
    assert (rolled - mine).abs().max() > 1e-6 * mine.abs().max()  # a condition of another sample is seen


def test_a_condition_that_is_missing_is_named() -> None:
    read = Denoiser.from_diffusers(text_unet(), diffusers.DDPMScheduler())
    with pytest.raises(InputError, match="encoder_hidden_states") as caught:
        read(torch.zeros(2, 1, 8, 8), 0.0)
    assert "\n" not in str(caught.value)
