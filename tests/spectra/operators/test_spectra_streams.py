"""Every estimator draws from a random stream of its own, so that equal seeds do not make two of them share vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from prescribed import matrix
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.kernel.probes import orthonormal_probes, sign_probes
from ntkdiag.randomness import generator, stream_seed
from ntkdiag.spectra import lanczos_quadrature, top_eigenpairs, trace_estimates

SIZE = 40


def first_block(estimate: Callable[..., object], seed: int) -> Tensor:
    """The first vectors that an estimator multiplies by the operator, as the span of their columns."""
    a, seen = matrix(np.arange(SIZE, 0, -1.0)), []

    def apply(v: Tensor) -> Tensor:
        seen.append(v)
        return a @ v

    estimate(apply, a[:1], SIZE, seed)
    return torch.linalg.qr(seen[0]).Q


ESTIMATORS = {
    "block Lanczos": lambda f, like, n, seed: top_eigenpairs(f, like, n, 4, seed=seed),
    "quadrature": lambda f, like, n, seed: lanczos_quadrature(f, like, n, vectors=4, steps=3, seed=seed),
    "Hutch++": lambda f, like, n, seed: trace_estimates(f, like, n, 4, seed=seed),
    "sign probes": lambda f, like, n, seed: f(sign_probes(torch.Size([n]), 4, seed, torch.float64).T),
    "orthonormal probes": lambda f, like, n, seed: f(
        orthonormal_probes(torch.Size([n]), 4, seed, torch.float64).T
    ),
}


@pytest.mark.parametrize("seed", [0, 7])
def test_no_two_estimators_draw_the_same_vectors(seed: int) -> None:
    """The largest cosine between two random 4-dimensional subspaces of 40 dimensions is about 0.6; of equal ones, 1."""
    blocks = {name: first_block(one, seed) for name, one in ESTIMATORS.items()}
    for name, block in blocks.items():
        for other, beside in blocks.items():
            if name < other:
                cosine = float(torch.linalg.matrix_norm(block.T @ beside, 2))
                assert cosine < 0.9, (name, other)


@pytest.mark.parametrize("seed", range(5))
def test_deflation_keeps_the_copies_beyond_the_known_ones(seed: int) -> None:
    """20 copies of 5, of which 4 are deflated, and 80 values from 1 to 0.1: the trace is 144."""
    e = np.r_[np.full(20, 5.0), np.linspace(1, 0.1, 80)]
    a = matrix(e)
    known = top_eigenpairs(lambda v: a @ v, a[:1], len(e), 4, seed=seed)
    rule = lanczos_quadrature(lambda v: a @ v, a[:1], len(e), vectors=4, known=known, seed=seed)
    found = rule.sums(lambda x: x)
    assert abs(found.mean() - e.sum()) < 4 * found.std(ddof=1) / 2 + 5


def test_streams_differ_by_name_and_by_seed() -> None:
    seeds = {stream_seed(seed, name) for seed in range(50) for name in ("a", "b", 0, 1)}
    assert len(seeds) == 200
    assert torch.equal(
        torch.randn(3, generator=generator(1, "a")), torch.randn(3, generator=generator(1, "a"))
    )
    with pytest.raises(InputError, match="seed: expected an integer of at least 0"):
        generator(-1, "a")
