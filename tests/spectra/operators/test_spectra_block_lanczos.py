"""Block Lanczos on prescribed spectra: values, orthogonality, residual bounds, breakdown, hostile operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prescribed import SIZE, SPECTRA, matrix
from scipy.sparse.linalg import aslinearoperator, eigsh

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.spectra.operators.block_lanczos import top_eigenpairs


def solve(a: torch.Tensor, count: int, **options):
    return top_eigenpairs(lambda v: a @ v, a[:1], len(a), count, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SPECTRA)
def test_prescribed_spectra_are_found_with_their_multiplicities(name, dtype):
    wanted = np.sort(SPECTRA[name])[::-1][:12]
    found = solve(matrix(SPECTRA[name], dtype=dtype), 12)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    assert found.converged
    np.testing.assert_allclose(found.values.numpy(), wanted, atol=tolerance * max(wanted[0], 1))
    overlap = found.vectors.T @ found.vectors
    torch.testing.assert_close(overlap, torch.eye(12, dtype=dtype), atol=100 * tolerance, rtol=0)


@pytest.mark.parametrize("name", ["power law", "low rank plus noise", "clustered", "rank deficient"])
def test_residual_bounds_hold_over_seeds(name):
    """An eigenvalue lies within the stated residual of every Ritz value, converged or not, in 95% of 125 seeds or more."""
    truth = SPECTRA[name]
    held = 0
    for seed in range(125):
        a = matrix(truth, seed)
        found = solve(a, 6, max_products=16, seed=seed)
        nearest = np.abs(found.values.numpy()[:, None] - truth).min(1)
        held += bool((nearest <= found.residuals.numpy() + 1e-12 * truth.max()).all())
    assert held >= 0.95 * 125


def test_residuals_are_those_of_the_vectors():
    a = matrix(SPECTRA["power law"])
    found = solve(a, 5, max_products=12)
    direct = (a @ found.vectors - found.vectors * found.values).norm(dim=0)
    np.testing.assert_allclose(found.residuals, direct, atol=1e-12)
    assert not found.converged


def test_agrees_with_eigsh_on_the_same_operator():
    a = matrix(np.exp(-np.arange(SIZE) / 5.0), seed=3)
    found = solve(a, 8)
    reference = eigsh(aslinearoperator(a.numpy()), k=8)[0][::-1]
    np.testing.assert_allclose(found.values.numpy(), reference, rtol=1e-8)


@pytest.mark.parametrize("block", [1, 3, 7])
@pytest.mark.parametrize("count", [1, SIZE])
def test_edge_sizes(block, count):
    a = matrix(SPECTRA["power law"], seed=1)
    found = solve(a, count, block=block, max_products=10 * SIZE)
    np.testing.assert_allclose(found.values.numpy(), SPECTRA["power law"][:count], atol=1e-6)


@pytest.mark.parametrize("block", [2, 4])
def test_copies_beyond_the_block_are_found(block):
    """Six copies of each eigenvalue, as where six outputs share a last layer: one Krylov space holds `block` of them."""
    truth = np.repeat(0.6 ** np.arange(50), 6)
    for seed in range(20):
        found = solve(matrix(truth, seed), 13, block=block, seed=seed, max_products=250)
        assert found.converged
        assert found.restarts > 0
        np.testing.assert_allclose(found.values.numpy(), truth[:13], rtol=1e-6)


def test_one_by_one():
    found = solve(torch.tensor([[3.0]], dtype=torch.float64), 1)
    assert found.values.tolist() == [3.0]


def test_the_same_seed_gives_the_same_bytes():
    a = matrix(SPECTRA["power law"])
    assert torch.equal(solve(a, 4, seed=5).vectors, solve(a, 4, seed=5).vectors)


def test_a_non_finite_operator_is_refused():
    with pytest.raises(MeasurementError, match="finite products"):
        top_eigenpairs(lambda v: v * float("nan"), torch.zeros(1, dtype=torch.float64), 10, 2)


def test_more_pairs_than_dimensions_are_refused():
    with pytest.raises(InputError, match="at most the operator's size 60"):
        solve(matrix(SPECTRA["flat"]), SIZE + 1)
