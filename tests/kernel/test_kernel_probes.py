"""Probes: unbiased, of the variance the docstring states, exhaustive from D upwards."""

from __future__ import annotations

import itertools
import math

import kernel_truth
import numpy as np
import pytest
import torch
from kernel_networks import linear, normal, perceptron
from scipy import stats
from torch import nn

from ntkdiag.errors import InputError
from ntkdiag.kernel.probes import all_outputs, mean_probe, orthonormal_probes, sign_probes

DOUBLE = torch.float64
SHAPE = torch.Size([2, 3])


def theta() -> torch.Tensor:
    """Θ(x_0, x_1) of a network with six outputs; with a second hidden layer it is not symmetric."""
    module = nn.Sequential(perceptron(outputs=5), nn.Tanh(), linear(5, 6))
    first, second = kernel_truth.jacobian(module, (normal(2, 3),))
    return first @ second.T


def variance(block: torch.Tensor) -> float:
    """(2/D²)(‖S‖_F² − Σ S_aa²), S the symmetric part."""
    symmetric = (block + block.T) / 2
    outputs = len(block)
    return float(2 / outputs**2 * (symmetric.square().sum() - symmetric.diagonal().square().sum()))


def test_mean_and_variance_over_all_sign_vectors_are_as_stated() -> None:
    block = theta()
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=6)), dtype=DOUBLE) / math.sqrt(6)
    values = torch.einsum("ra,ab,rb->r", signs, block, signs)
    assert values.mean().item() == pytest.approx(block.trace().item() / 6, rel=1e-12)
    assert values.var(correction=0).item() == pytest.approx(variance(block), rel=1e-12)
    assert not torch.allclose(block, block.T, rtol=1e-2)  # else the symmetric part would go untested


def test_drawn_probes_have_that_mean_and_variance() -> None:
    block = theta()
    draws = torch.cat([sign_probes(SHAPE, 5, seed, DOUBLE) for seed in range(4000)]).flatten(1)
    values = torch.einsum("ra,ab,rb->r", draws, block, draws).numpy()
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - block.trace().item() / 6) < 4 * error
    spread = np.square(values - values.mean())
    assert abs(spread.mean() - variance(block)) < 4 * spread.std() / math.sqrt(len(values))


def test_signs_are_fair_independent_and_scaled() -> None:
    draws = sign_probes(torch.Size([100]), 64, 0, DOUBLE)
    assert draws.shape == (64, 100)
    torch.testing.assert_close(draws.abs(), torch.full_like(draws, 0.1))
    pooled = torch.cat([sign_probes(SHAPE, 5, seed, DOUBLE) for seed in range(2000)]).flatten(1) > 0
    codes = (pooled.numpy() * 2 ** np.arange(6)).sum(1)
    assert stats.chisquare(np.bincount(codes, minlength=64)).pvalue > 1e-3


def test_a_seed_gives_the_same_signs_in_any_dtype_and_leaves_torchs_own_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = sign_probes(SHAPE, 4, 7, DOUBLE), sign_probes(SHAPE, 4, 7, torch.float32)
    orthonormal_probes(SHAPE, 4, 7, DOUBLE)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert two.dtype == torch.float32 and torch.equal(one > 0, two > 0)
    assert not torch.equal(one, sign_probes(SHAPE, 4, 8, DOUBLE))
    # The first probes do not change when more are asked for.
    assert torch.equal(sign_probes(SHAPE, 5, 7, DOUBLE)[:4], one)


@pytest.mark.parametrize("probes", [6, 7, 100])
def test_from_d_upwards_the_probes_are_exhaustive(probes: int) -> None:
    assert torch.equal(sign_probes(SHAPE, probes, 0, DOUBLE).flatten(1), torch.eye(6, dtype=DOUBLE))
    assert torch.equal(all_outputs(SHAPE, DOUBLE).flatten(1), torch.eye(6, dtype=DOUBLE))
    assert all_outputs(SHAPE, DOUBLE).shape == (6, 2, 3)


def test_the_mean_probe_is_a_unit_vector() -> None:
    probe = mean_probe(SHAPE, DOUBLE)
    assert probe.shape == (1, 2, 3) and float(probe.norm()) == pytest.approx(1.0)
    assert probe.unique().numel() == 1


@pytest.mark.parametrize("probes", [1, 3, 6])
def test_directions_are_orthonormal(probes: int) -> None:
    basis = orthonormal_probes(SHAPE, probes, 3, DOUBLE).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(probes, dtype=DOUBLE))


def test_directions_favour_no_output() -> None:
    """Each output carries R/D of the subspace on average."""
    share = torch.stack(
        [orthonormal_probes(SHAPE, 2, seed, DOUBLE).flatten(1).square().sum(0) for seed in range(500)]
    )
    error = share.std(0) / math.sqrt(500)
    assert bool(((share.mean(0) - 2 / 6).abs() < 4 * error).all())


def test_impossible_numbers_are_refused() -> None:
    for probes in (0, -1, 2.5):
        with pytest.raises(InputError, match="probes: expected an integer of at least 1"):
            sign_probes(SHAPE, probes, 0, DOUBLE)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="probes: expected an integer of at least 1"):
            orthonormal_probes(SHAPE, probes, 0, DOUBLE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="probes: expected at most the 6 outputs of a sample; got 7"):
        orthonormal_probes(SHAPE, 7, 0, DOUBLE)
