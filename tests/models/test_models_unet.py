"""The U-Net: against the published sizes, and its parts against slow versions."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d, silu

from ntkdiag import models
from ntkdiag.models.unet import UNet

# Parameters of the class-conditional networks in table 4 of arXiv 2105.05233, in millions.
PUBLISHED = [
    ((3, 64, 64), {"channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3}, 296),
    ((3, 128, 128), {"channels": 256, "multipliers": (1, 1, 2, 3, 4), "blocks": 2}, 422),
    ((3, 256, 256), {"channels": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2}, 554),
]


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("shape", "sizes", "millions"), PUBLISHED)
def test_the_published_sizes_have_their_number_of_parameters(shape, sizes, millions):
    """The published ones also predict variances, three channels more, and have no row for "no label"."""
    channels = sizes["channels"]
    with torch.device("meta"):
        network = UNet(shape, **sizes, attention=32, frequencies=channels // 2, classes=1000)
    variances, no_label = 3 * (9 * channels + 1), 4 * channels
    assert round((parameters(network) + variances - no_label) / 1e6) == millions


@pytest.fixture
def small():
    sizes = {"channels": 8, "multipliers": (1, 2, 2), "blocks": 1, "attention": 4, "head_width": 4}
    return models.build("unet", (2, 8, 12), **sizes).double()


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def normed(x, layer):
    """Group norm in words: each group of channels of each sample to mean 0 and variance 1."""
    groups = x.reshape(len(x), layer.num_groups, -1)
    centred = groups - groups.mean(2, keepdim=True)
    scaled = centred / (centred.square().mean(2, keepdim=True) + layer.eps).sqrt()
    return scaled.reshape(x.shape) * layer.weight[:, None, None] + layer.bias[:, None, None]


def test_a_block_that_halves_is_what_the_paper_says(small):
    block = next(block for block in small.down if block.resample == "half")
    x, condition = normal(3, 8, 4, 6), normal(3, 32)

    def half(x):
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    scale, shift = block.modulation(condition)[:, :, None, None].chunk(2, dim=1)
    hidden = conv2d(half(silu(normed(x, block.norm))), block.enter.weight, block.enter.bias, padding=1)
    hidden = normed(hidden, block.modulated) * (1 + scale) + shift
    hidden = conv2d(silu(hidden), block.leave.weight, block.leave.bias, padding=1)
    assert torch.allclose(block(x, condition), half(x) + hidden)


def test_attention_is_the_softmax_it_says_it_is(small):
    attention = small.middle[0].attention
    x = normal(2, 16, 2, 3)
    tokens = normed(x, attention.norm).flatten(2).mT
    query, key, value = attention.qkv(tokens).reshape(2, 6, 3, 4, 4).unbind(2)  # 4 heads of 4 channels
    mixed = torch.zeros(2, 6, 4, 4, dtype=torch.float64)
    for n in range(2):
        for head in range(4):
            scores = query[n, :, head] @ key[n, :, head].T / 2
            mixed[n, :, head] = torch.softmax(scores, dim=1) @ value[n, :, head]
    added = attention.attended(mixed.reshape(2, 6, 16)).mT.reshape(x.shape)
    assert torch.allclose(attention(x), x + added)


def test_attention_is_where_it_was_asked_for_and_in_the_middle(small):
    """Longer sides of 12, 6 and 3 at most 4: the last level alone."""

    def attends(blocks):
        return [hasattr(block.attention, "qkv") for block in blocks]

    assert attends(small.middle) == [True, False]
    assert attends(small.down) == [False] * 4 + [True]
    assert attends(small.up) == [True, True] + [False] * 6
    none = models.build("unet", (2, 8, 12), channels=8, attention=0)
    assert not any(attends([*none.down, *none.up]))


def test_the_way_up_takes_each_map_of_the_way_down_latest_first(small):
    left, joined = [], []
    small.enter.register_forward_hook(lambda layer, inputs, output: left.append(output))
    for block in small.down:
        block.register_forward_hook(lambda block, inputs, output: left.append(output))
    for block in small.up:
        if block.resample is None:
            block.register_forward_pre_hook(lambda block, inputs: joined.append(inputs[0]))
    small(normal(1, 2, 8, 12), torch.zeros(1, dtype=torch.float64))
    assert len(left) == len(joined) == 6
    for kept, taken in zip(reversed(left), joined, strict=True):
        assert torch.equal(taken[:, -kept.shape[1] :], kept)


@pytest.mark.parametrize(("width", "groups"), [(2, 1), (8, 2), (48, 12), (130, 26), (192, 32), (1024, 32)])
def test_norms_have_32_groups_or_four_channels_in_each(width, groups):
    with torch.device("meta"):
        assert UNet((1, 2, 2), channels=width, multipliers=(1,)).norm.num_groups == groups


def test_zero_init_predicts_zero_and_trains_its_output_layer_only():
    network = models.build("unet", (1, 8, 8), channels=8, zero_init=True)
    out = network(normal(4, 1, 8, 8).float(), torch.zeros(4))
    assert torch.equal(out, torch.zeros(4, 1, 8, 8))
    (out - 1).square().sum().backward()
    moving = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert moving == {"out.weight", "out.bias"}
