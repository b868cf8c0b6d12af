"""Hutch++ and Lanczos quadrature: bias, coverage, exactness where the spectrum allows it, density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prescribed import SIZE, SPECTRA, matrix

from ntkdiag.errors import InputError
from ntkdiag.randomness import generator
from ntkdiag.spectra.dense.rank import effective_rank
from ntkdiag.spectra.operators.block_lanczos import top_eigenpairs
from ntkdiag.spectra.operators.quadrature import density, entropy_effective_rank, lanczos_quadrature
from ntkdiag.spectra.operators.signal import signal_spectrum
from ntkdiag.spectra.operators.stochastic_trace import trace_estimates
from ntkdiag.spectra.operators.tridiagonal import gauss_rule, tridiagonalise

SEEDS = 400


def traces(a: torch.Tensor, probes: int, seed: int):
    return trace_estimates(lambda v: a @ v, a[:1], len(a), probes, seed=seed)


@pytest.mark.parametrize("name", ["flat", "power law", "clustered"])
def test_trace_intervals_cover_and_are_unbiased(name):
    e = SPECTRA[name]
    truth = {"trace": e.sum(), "square": (e**2).sum(), "participation_ratio": e.sum() ** 2 / (e**2).sum()}
    a = matrix(e)
    runs = [traces(a, 12, seed) for seed in range(SEEDS)]
    for what, value in truth.items():
        found = [getattr(run, what) for run in runs]
        covered = np.mean([one.low <= value <= one.high for one in found])
        assert 0.84 <= covered <= 0.96, (what, covered)
        values = np.array([one.value for one in found])
        if what != "participation_ratio":  # the ratio is biased by the order of its variance
            assert abs(values.mean() - value) < 4 * values.std() / np.sqrt(SEEDS)


@pytest.mark.parametrize("name", ["rank deficient", "rank one", "zero"])
def test_a_spectrum_within_the_sketch_is_summed_exactly(name):
    e = SPECTRA[name]
    found = traces(matrix(e), 12, seed=0)
    assert found.trace.value == pytest.approx(e.sum(), abs=1e-10)
    assert found.square.value == pytest.approx((e**2).sum(), abs=1e-10)


def test_enough_probes_make_it_exact_and_too_few_are_refused():
    e = SPECTRA["power law"]
    found = traces(matrix(e), SIZE, seed=0)
    assert found.products == SIZE
    assert found.trace.stderr == 0.0
    assert found.participation_ratio.value == pytest.approx(e.sum() ** 2 / (e**2).sum(), rel=1e-10)
    with pytest.raises(InputError, match="at least 3"):
        traces(matrix(e), 2, seed=0)


def quadrature(a: torch.Tensor, seed: int, deflated: int = 0, **options):
    def apply(v):
        return a @ v

    known = top_eigenpairs(apply, a[:1], len(a), deflated, tolerance=1e-10) if deflated else None
    return lanczos_quadrature(apply, a[:1], len(a), seed=seed, known=known, **options)


@pytest.mark.parametrize("name", ["power law", "low rank plus noise", "clustered"])
def test_effective_rank_by_deflated_quadrature_covers(name):
    e = SPECTRA[name]
    truth = effective_rank(e)
    a = matrix(e)
    found = [
        entropy_effective_rank(quadrature(a, seed, deflated=8, vectors=8, steps=30)) for seed in range(200)
    ]
    covered = np.mean([one.low - 1e-9 <= truth <= one.high + 1e-9 for one in found])
    assert covered >= 0.84, covered
    assert np.mean([one.value for one in found]) == pytest.approx(truth, rel=0.02)


@pytest.mark.parametrize("name", SPECTRA)
def test_gauss_rules_integrate_polynomials_exactly(name):
    """m nodes integrate degree 2m − 1: here vᵀ A³ v for two steps, against the same vectors."""
    a = matrix(SPECTRA[name])
    v = torch.randn(SIZE, 3, generator=generator(2, "quadrature"), dtype=torch.float64)
    v = v / v.norm(dim=0)
    found = tridiagonalise(lambda block: a @ block, v, 2)
    direct = (v * (a @ a @ a @ v)).sum(0).numpy()
    for k in range(3):
        m = found.length(k)
        nodes, weights = gauss_rule(found.diagonal[k, :m], found.beside[k, : m - 1])
        assert weights @ nodes**3 == pytest.approx(direct[k], abs=1e-10 * max(1, abs(direct).max()))
    if name == "power law":  # nothing converges in two steps: the vectors have no eigenvalues to exchange
        rule = quadrature(a, seed=2, vectors=3, steps=2)
        np.testing.assert_allclose(rule.sums(lambda x: x**3), SIZE * direct, rtol=1e-10)


def test_exactly_low_rank_operators_close_early_without_noise():
    rule = quadrature(matrix(SPECTRA["rank one"]), seed=0, vectors=4, steps=20)
    assert rule.nodes.shape[1] <= 4
    np.testing.assert_allclose(np.sort(np.abs(rule.nodes), 1)[:, -1], 1.0, atol=1e-12)


@pytest.mark.parametrize("name", ["rank one", "power law"])
def test_products_are_those_that_the_operator_was_asked_for(name):
    a, columns = matrix(SPECTRA[name]), []

    def apply(v):
        columns.append(v.shape[1])
        return a @ v

    rule = lanczos_quadrature(apply, a[:1], len(a), vectors=4, steps=6)
    assert rule.products == sum(columns)
    columns.clear()
    signal = signal_spectrum(apply, torch.ones(len(a), dtype=torch.float64), steps=6)
    assert signal.products == sum(columns)


def test_density_counts_eigenvalues():
    e = SPECTRA["clustered"]
    rule = quadrature(matrix(e), seed=0, deflated=10, vectors=8, steps=20)
    grid = np.linspace(-2, 4, 1201)
    mean, low, high = density(rule, grid)
    step = grid[1] - grid[0]
    assert mean.sum() * step == pytest.approx(SIZE, rel=0.02)
    top = grid > np.log(2.5)
    assert mean[top].sum() * step == pytest.approx(10, rel=0.02)
    assert (low <= mean + 1e-12).all() and (mean <= high + 1e-12).all() and (low >= 0).all()


def test_everything_deflated_is_exact():
    a = matrix(SPECTRA["power law"])
    rule = quadrature(a, seed=0, deflated=SIZE)
    assert rule.sums(lambda x: x) == pytest.approx(SPECTRA["power law"].sum())


STEEP = [2, 8, 14]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("decades", STEEP)
def test_steep_spectra_are_covered_without_deflation(decades, dtype):
    """40 eigenvalues from 1 to 10^-decades. Only chance decides how much of the few large ones a random vector holds."""
    e = np.logspace(0, -decades, 40)
    a = matrix(e, dtype=dtype)
    e = np.linalg.eigvalsh(a.double().numpy())  # float32 rounds the matrix, and so the small eigenvalues
    truth = effective_rank(e)
    found = [entropy_effective_rank(quadrature(a, seed, vectors=8, steps=40)) for seed in range(80)]
    slack = 1e-9 if dtype == torch.float64 else 2e-3
    covered = np.mean([one.low * (1 - slack) <= truth <= one.high * (1 + slack) for one in found])
    assert covered >= 0.82, covered
    assert np.abs(np.log([one.value / truth for one in found])).max() < 0.05


@pytest.mark.parametrize("name", SPECTRA)
def test_what_the_vectors_tell_each_other_adds_no_bias(name):
    """Copies of an eigenvalue, of which each vector finds one direction, are counted right on average."""
    a, e = matrix(SPECTRA[name]), SPECTRA[name]
    found = np.concatenate([quadrature(a, s, vectors=4, steps=20).sums(lambda x: x**2) for s in range(60)])
    assert abs(found.mean() - (e**2).sum()) <= 4 * found.std() / 60**0.5 + 1e-9
