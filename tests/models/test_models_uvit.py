"""The transformer with long skips: against the published sizes, and its parts against slow versions."""

from __future__ import annotations

import math

import pytest
import torch

from ntkdiag import models
from ntkdiag.models.uvit import UViT

# Parameters in table 1 of arXiv 2209.12152, in millions: U-ViT-S, S (deep), M, L and H.
PUBLISHED = [
    ((3, 32, 32), {"patch": 2, "width": 512, "depth": 13, "heads": 8}, 44),
    ((4, 32, 32), {"patch": 2, "width": 512, "depth": 17, "heads": 8}, 58),
    ((3, 64, 64), {"patch": 4, "width": 768, "depth": 17, "heads": 12, "classes": 1000}, 131),
    ((3, 64, 64), {"patch": 4, "width": 1024, "depth": 21, "heads": 16, "classes": 1000}, 287),
    ((4, 32, 32), {"patch": 2, "width": 1152, "depth": 29, "heads": 16, "classes": 1000}, 501),
]


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("shape", "sizes", "millions"), PUBLISHED)
def test_the_published_sizes_have_their_number_of_parameters(shape, sizes, millions):
    """The published ones take the sines and cosines of the time as its token, without an MLP."""
    with torch.device("meta"):
        network = UViT(shape, **sizes)
    condition = network.condition
    own = parameters(condition.hidden) + parameters(condition.out)
    assert round((parameters(network) - own) / 1e6) == millions


@pytest.fixture
def small():
    network = models.build("uvit", (2, 4, 6), patch=2, width=16, depth=5, heads=2, classes=3)
    return network.double()


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_tokens_are_the_level_the_label_and_the_patches_in_their_order(small):
    x, level, labels = normal(1, 2, 4, 6), torch.tensor([1.5], dtype=torch.float64), torch.tensor([2])
    seen = []
    small.before[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    small(x, level, labels)
    tokens = seen[0][0] - small.positions
    assert torch.allclose(tokens[0], small.condition.of_level(level)[0])
    assert torch.allclose(tokens[1], small.condition.label.weight[2])
    row, column = 1, 2
    square = x[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    expected = (small.embed.weight * square).sum((1, 2, 3)) + small.embed.bias
    assert torch.allclose(tokens[2 + row * 3 + column], expected)


def test_a_patch_returns_to_its_place(small):
    """Pixels of one token, constant else: only its square of the image changes before the last convolution."""
    seen = []
    small.out.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    chosen = 4  # row 1, column 1 of the grid

    def mark(layer, inputs, output):
        marked = torch.zeros_like(output)
        marked[:, chosen] = torch.arange(8)
        return marked

    small.pixels.register_forward_hook(mark)
    small(normal(1, 2, 4, 6), torch.zeros(1, dtype=torch.float64))
    image = torch.zeros(2, 4, 6, dtype=torch.float64)
    image[:, 2:4, 2:4] = torch.arange(8).reshape(2, 2, 2)
    assert torch.equal(seen[0][0], image)


def test_a_block_is_what_the_paper_says(small):
    block = small.behind[0]
    tokens, skip = normal(2, 5, 16), normal(2, 5, 16) + 1
    joined = block.join(torch.cat([tokens, skip], dim=2))
    query, key, value = block.qkv(block.norm_attention(joined)).reshape(2, 5, 3, 2, 8).unbind(2)
    mixed = torch.zeros(2, 5, 2, 8, dtype=torch.float64)
    for n in range(2):
        for head in range(2):
            scores = query[n, :, head] @ key[n, :, head].T / math.sqrt(8)
            mixed[n, :, head] = torch.softmax(scores, dim=1) @ value[n, :, head]
    joined = joined + block.attended(mixed.reshape(2, 5, 16))
    hidden = torch.nn.functional.gelu(block.expand(block.norm_mlp(joined)))
    assert torch.allclose(block(tokens, skip), joined + block.contract(hidden))


def test_skips_join_blocks_at_equal_distance_from_the_middle(small):
    given, returned = [], []
    for block in small.before:
        block.register_forward_hook(lambda block, inputs, output: returned.append(output))
    for block in small.behind:
        block.register_forward_pre_hook(lambda block, inputs: given.append(inputs[1]))
    small(normal(1, 2, 4, 6), torch.zeros(1, dtype=torch.float64))
    assert len(given) == len(returned) == 2
    assert given[0] is returned[1]
    assert given[1] is returned[0]


def test_live_init_has_unit_scale():
    network = models.build("uvit", (1, 8, 8))
    out = network(normal(256, 1, 8, 8).float(), torch.linspace(-8, 8, 256))
    assert 0.5 < out.square().mean().sqrt() < 2.0
