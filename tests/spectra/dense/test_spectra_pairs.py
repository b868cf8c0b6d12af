"""The bias of the participation ratio in N, and in probe noise.

The population is Gaussian: 50 independent features of variance k^-0.9985, whose participation ratio is 12.5.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spectra_populations import POWER_LAW, REFERENCE, features, gram, slow_pairs

from ntkdiag.errors import InputError
from ntkdiag.spectra import participation_ratio, participation_ratio_pairs

REPEATS = {16: 2000, 32: 800, 64: 500, 128: 150}
# what the eigenvalue statistic reads at N samples
NAIVE = {16: 7.2, 32: 9.1, 64: 10.5, 128: 11.6}
# how far the pair statistic may be from 12.5
PAIRS_WITHIN = {16: 0.15, 32: 0.08, 64: 0.05, 128: 0.03}


def test_the_population_has_participation_ratio_12_5() -> None:
    assert REFERENCE.sum() ** 2 / np.square(REFERENCE).sum() == pytest.approx(12.5, abs=1e-5)


@pytest.mark.parametrize("samples", REPEATS)
def test_naive_reads_low_and_pairs_do_not(samples: int) -> None:
    rng = np.random.default_rng(samples)
    naive, pairs = [], []
    for _ in range(REPEATS[samples]):
        matrix = gram(REFERENCE, samples, rng)
        naive.append(participation_ratio(matrix))
        pairs.append(participation_ratio_pairs(matrix))
    assert np.mean(naive) == pytest.approx(NAIVE[samples], rel=0.025)
    assert np.mean(pairs) == pytest.approx(12.5, rel=PAIRS_WITHIN[samples])
    if samples == 16:
        assert np.mean(naive) < 0.6 * 12.5
    if samples == 64:
        assert 0.83 * 12.5 < np.mean(naive) < 0.87 * 12.5


def test_the_definition_over_pairs() -> None:
    matrix = gram(POWER_LAW, 9, np.random.default_rng(1))
    assert participation_ratio_pairs(matrix) == pytest.approx(slow_pairs(matrix))
    assert participation_ratio_pairs(torch.from_numpy(matrix)) == pytest.approx(slow_pairs(matrix))


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_extreme_scales_neither_vanish_nor_overflow(scale: float) -> None:
    matrix = gram(POWER_LAW, 9, np.random.default_rng(1))
    assert participation_ratio_pairs(scale * matrix) == pytest.approx(slow_pairs(matrix))


def noisy(probes: int, rng: np.random.Generator, outputs: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Trace kernel [N, N] of random Jacobians, and its Grams by ±1 probes shared by samples, [R, N, N]."""
    jacobians = rng.standard_normal((40, outputs, 30)) * np.sqrt(POWER_LAW[:30])
    exact = np.einsum("iap,jap->ij", jacobians, jacobians) / outputs
    signs = rng.choice([-1.0, 1.0], (probes, outputs))
    gradients = np.einsum("ra,iap->rip", signs, jacobians)
    return exact, gradients @ gradients.transpose(0, 2, 1) / outputs


def test_probe_noise_lowers_the_ratio_and_both_corrections_mend_it() -> None:
    """Means of 1/PR over many draws are compared: the noisy sum stands in its numerator."""
    trials = []
    for seed in range(400):
        exact, grams = noisy(6, np.random.default_rng([1, seed]))
        mean, error = grams.mean(0), grams.std(0, ddof=1) / np.sqrt(6)
        trials.append(
            [
                1 / participation_ratio_pairs(exact),
                1 / participation_ratio_pairs(mean),
                1 / participation_ratio_pairs(mean, stderr=error),
                1 / participation_ratio_pairs(mean, per_probe=grams),
            ]
        )
    truth, raw, by_stderr, by_probe = np.mean(trials, 0)
    assert raw > 1.5 * truth
    assert by_stderr == pytest.approx(truth, rel=0.04)
    assert by_probe == pytest.approx(truth, rel=0.04)


def test_products_of_disjoint_probes_by_their_definition() -> None:
    _, grams = noisy(3, np.random.default_rng(5))
    above = below = 0.0
    for r in range(3):
        for s in range(3):
            if r == s:
                continue
            diagonals = np.outer(np.diag(grams[r]), np.diag(grams[s]))
            squares = grams[r] * grams[s]
            above += diagonals.sum() - np.trace(diagonals)
            below += squares.sum() - np.trace(squares)
    got = participation_ratio_pairs(grams.mean(0), per_probe=grams)
    assert got == pytest.approx(above / below)


def test_exact_probes_need_no_correction() -> None:
    matrix = gram(POWER_LAW, 9, np.random.default_rng(1))
    plain = participation_ratio_pairs(matrix)
    assert participation_ratio_pairs(matrix, stderr=np.zeros((9, 9))) == pytest.approx(plain)
    assert participation_ratio_pairs(matrix, per_probe=np.stack([matrix] * 4)) == pytest.approx(plain)


def test_no_overlap_beyond_the_noise_is_infinite() -> None:
    matrix = np.eye(4) + 0.1
    assert participation_ratio_pairs(matrix, stderr=np.full((4, 4), 0.2)) == np.inf


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"stderr": np.zeros((3, 3)), "per_probe": np.zeros((2, 4, 4))}, "stderr or per_probe; got both"),
        ({"stderr": np.zeros((3, 3))}, r"stderr: expected non-negative numbers of shape \(4, 4\)"),
        ({"stderr": np.full((4, 4), -1.0)}, "stderr: expected non-negative"),
        ({"stderr": np.full((4, 4), np.nan)}, "stderr: expected finite entries"),
        ({"per_probe": np.eye(4)[None]}, "per_probe: expected at least 2 probes"),
        ({"per_probe": np.stack([np.eye(3)] * 2)}, "per_probe: expected at least 2 probes of shape"),
        ({"per_probe": np.eye(4)}, r"per_probe: expected shape \[R, N, N\] with N ≥ 1; got shape \[4, 4\]"),
        ({"per_probe": np.stack([np.eye(4), 2 * np.eye(4)])}, "Grams whose mean is the matrix; got another"),
    ],
)
def test_wrong_noise_is_refused(known: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        participation_ratio_pairs(np.eye(4), **known)


def test_features_helper_has_the_spectrum_it_says() -> None:
    phi = features(POWER_LAW, 20000, np.random.default_rng(0))
    np.testing.assert_allclose(np.square(phi).mean(0), POWER_LAW, rtol=0.06)
