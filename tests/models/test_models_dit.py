"""The transformer: against the published size, and its parts against slow versions."""

from __future__ import annotations

import math

import pytest
import torch

from ntkdiag import models
from ntkdiag.models.dit import DiT, grid_positions


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_dit_xl_2_has_the_published_number_of_parameters():
    """The released one counts 675,129,632, its position table and twice the outputs (variances) included."""
    with torch.device("meta"):
        network = DiT((4, 32, 32), patch=2, width=1152, depth=28, heads=16, classes=1000)
    table = 256 * 1152
    variances = (1152 + 1) * 4 * 2 * 2
    assert parameters(network) + table + variances == 675_129_632


def test_the_middle_size_used_for_comparison_builds():
    with torch.device("meta"):
        network = DiT((3, 32, 32), patch=4, width=384, depth=12, heads=6)
    assert network.positions.shape == (64, 384)
    assert 32e6 < parameters(network) < 33e6


@pytest.fixture
def small():
    return models.build("dit", (2, 4, 6), patch=2, width=16, depth=2, heads=2).double()


def test_patches_are_the_images_squares_and_come_back_exactly(small):
    x = torch.arange(2 * 2 * 4 * 6, dtype=torch.float64).reshape(2, 2, 4, 6)
    patches = small._patches(x)
    assert patches.shape == (2, 6, 8)
    row, column = 1, 2
    square = x[1, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    assert torch.equal(patches[1, row * 3 + column], square.flatten())
    assert torch.equal(small._image(patches), x)


def test_attention_is_the_softmax_it_says_it_is(small):
    block = small.blocks[0]
    tokens = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    query, key, value = block.qkv(tokens).reshape(3, 5, 3, 2, 8).unbind(2)
    mixed = torch.zeros(3, 5, 2, 8, dtype=torch.float64)
    for n in range(3):
        for head in range(2):
            scores = query[n, :, head] @ key[n, :, head].T / math.sqrt(8)
            mixed[n, :, head] = torch.softmax(scores, dim=1) @ value[n, :, head]
    assert torch.allclose(block._attend(tokens), block.attended(mixed.reshape(3, 5, 16)))


def test_tokens_see_each_other_and_know_their_place(small):
    x = torch.zeros(1, 2, 4, 6, dtype=torch.float64)
    log_snr = torch.zeros(1, dtype=torch.float64)
    blank = small(x, log_snr)
    x[0, 0, 0, 0] = 3.0
    assert (small(x, log_snr) - blank)[0, :, 2:, 4:].abs().max() > 1e-6  # a far patch has noticed
    assert (blank[0, :, :2, :2] - blank[0, :, 2:, 4:]).abs().max() > 1e-6  # equal patches, different places


def test_positions_are_distinct_and_factor_into_rows_and_columns():
    grid = grid_positions(3, 5, 16).reshape(3, 5, 16)
    assert torch.pdist(grid.reshape(15, 16)).min() > 0.1
    assert torch.equal(grid[1, :, :8], grid[1, :1, :8].expand(5, 8))
    assert torch.equal(grid[:, 2, 8:], grid[:1, 2, 8:].expand(3, 8))
    assert torch.allclose(grid[2, 4, :4], torch.sin(2 / 10_000 ** (torch.arange(4) / 4)))
    assert torch.allclose(grid[2, 4, 12:], torch.cos(4 / 10_000 ** (torch.arange(4) / 4)))


def test_zero_init_predicts_zero_and_trains_its_output_layer_only():
    network = models.build("dit", (1, 8, 8), width=16, depth=2, heads=2, zero_init=True)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    out = network(x, torch.zeros(4))
    assert torch.equal(out, torch.zeros_like(x))
    (out - x).square().sum().backward()
    moving = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert moving == {"out.weight", "out.bias"}


def test_live_init_has_the_stated_scales():
    network = models.build("dit", (1, 8, 8), width=64, depth=4)
    x = torch.randn(256, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    log_snr = torch.linspace(-8, 8, 256)
    seen = []
    network.blocks[1].modulation.register_forward_hook(lambda module, args, out: seen.append(out))
    out = network(x, log_snr)
    assert 0.1 < seen[0].square().mean().sqrt() < 0.5
    assert 0.5 < out.square().mean().sqrt() < 2.0


def test_state_holds_parameters_only(small):
    assert set(small.state_dict()) == {name for name, _ in small.named_parameters()}
