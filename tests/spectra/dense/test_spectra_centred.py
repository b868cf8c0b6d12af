"""The centred kernel and the shared share, against slow definitions, closed forms and populations with a known answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ntkdiag.errors import InputError
from ntkdiag.spectra import evaluate, subsample_intervals
from ntkdiag.spectra.dense.centred import centred, centred_pair_sums, shared_share
from ntkdiag.spectra.dense.eigen import Array
from ntkdiag.spectra.uncertainty.left_out import leave_out

LAW = np.arange(1, 21) ** -1.0


def _features(rng: np.random.Generator, samples: int, mean: float = 3.0) -> Array:
    """Gaussian features of covariance LAW around a mean that all samples share."""
    return rng.standard_normal((samples, len(LAW))) * np.sqrt(LAW) + mean


def _slow_pair_sums(first: Array, second: Array) -> tuple[float, float]:
    """Means over all distinct indices, of products of two kernels."""
    squares, traces = [], []
    for i, j, k, m in itertools.permutations(range(len(first)), 4):
        squares.append(
            first[i, j] * second[i, j] - 2 * first[i, j] * second[i, k] + first[i, j] * second[k, m]
        )
        apart = (first[i, i] + first[j, j]) / 2 - first[i, j]
        traces.append(apart * ((second[k, k] + second[m, m]) / 2 - second[k, m]))
    return float(np.mean(traces)), float(np.mean(squares))


def test_centred_is_h_k_h() -> None:
    phi = _features(np.random.default_rng(0), 9)
    left_over = phi - phi.mean(0)
    assert centred(phi @ phi.T) == pytest.approx(left_over @ left_over.T * 9 / 8)


def test_pair_sums_are_means_over_distinct_samples() -> None:
    phi = _features(np.random.default_rng(1), 7)
    found = centred_pair_sums(phi @ phi.T)
    slow = _slow_pair_sums(phi @ phi.T, phi @ phi.T)
    assert found[0] / found[1] == pytest.approx(slow[0] / slow[1], rel=1e-9)


def test_pair_sums_of_probes_never_multiply_a_probe_with_itself() -> None:
    rng = np.random.default_rng(2)
    probes = np.stack([phi @ phi.T for phi in (_features(rng, 6) for _ in range(3))])
    slow = np.mean([_slow_pair_sums(a, b) for a, b in itertools.permutations(probes, 2)], 0)
    found = centred_pair_sums(probes.mean(0), probes)
    assert found[0] / found[1] == pytest.approx(slow[0] / slow[1], rel=1e-9)


def test_pair_sums_of_subsets_are_those_of_the_sub_gram() -> None:
    phi = _features(np.random.default_rng(3), 8)
    gram, subset = phi @ phi.T, np.array([0, 2, 3, 6, 7])
    members = np.zeros((1, 8))
    members[0, subset] = 1
    together = centred_pair_sums(gram, members=members)[0]
    alone = centred_pair_sums(gram[np.ix_(subset, subset)])
    assert together[0] / together[1] == pytest.approx(alone[0] / alone[1], rel=1e-9)


@pytest.mark.parametrize("samples", [12, 40])
def test_sums_are_unbiased(samples: int) -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(2000):
        gram = (phi := _features(rng, samples)) @ phi.T
        left = centred(gram)
        unit = np.abs(left * (1 - 1 / samples)).max()
        found.append(centred_pair_sums(gram) * unit**2)
    mean, error = np.mean(found, 0), np.std(found, 0) / np.sqrt(len(found))
    assert np.all(np.abs(mean - [LAW.sum() ** 2, np.square(LAW).sum()]) < 4 * error)


def test_a_shared_answer_alone_leaves_nothing() -> None:
    ones = np.full((6, 6), 0.3)
    assert shared_share(ones) == pytest.approx(1)
    assert not centred(ones).any()
    assert evaluate("centred_effective_rank", ones) == 0
    assert evaluate("centred_trace", ones) == 0
    assert shared_share(np.eye(6)) == pytest.approx(1 / 6)
    assert evaluate("centred_effective_rank", np.eye(6)) == pytest.approx(5)
    assert np.isnan(shared_share(np.zeros((3, 3))))


@pytest.mark.parametrize("mean", [0.0, 1.0, 100.0])
def test_the_centred_kernel_does_not_see_what_all_samples_share(mean: float) -> None:
    base = _features(np.random.default_rng(5), 30, 0.0)
    names = [
        "centred_trace",
        "centred_top_eigenvalue",
        "centred_effective_rank",
        "centred_participation_ratio_pairs",
    ]
    for name in names:
        moved = evaluate(name, (base + mean) @ (base + mean).T)
        assert moved == pytest.approx(evaluate(name, base @ base.T), rel=1e-7), name


def test_one_sample_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 samples"):
        evaluate("centred_trace", np.ones((1, 1)))
    assert np.isnan(evaluate("centred_participation_ratio_pairs", np.eye(3)))


def test_probes_remove_the_bias_of_the_centred_statistics() -> None:
    """Means over many sets of four probes are those of the kernel without probe noise."""
    rng = np.random.default_rng(6)
    phi = _features(rng, 24)
    exact = {name: evaluate(name, phi @ phi.T) for name in ("centred_effective_rank", "shared_share")}
    pairs = evaluate("centred_participation_ratio_pairs", phi @ phi.T)
    values: dict[str, list[float]] = {name: [] for name in (*exact, "centred_participation_ratio_pairs")}
    raw = []
    for _ in range(300):
        weights = rng.chisquare(3, (8, len(LAW))) / 3
        grams = np.einsum("nk,rk,mk->rnm", phi, weights, phi)
        for name, found in leave_out(list(values), grams.mean(0), per_probe=grams).items():
            values[name].append(found.value)
        raw.append(evaluate("centred_effective_rank", grams.mean(0)))
    for name, truth in exact.items():
        error = np.std(values[name]) / np.sqrt(len(values[name]))
        assert abs(np.mean(values[name]) - truth) < 4 * error + 0.005 * truth, name
    gap = abs(np.mean(values["centred_effective_rank"]) - exact["centred_effective_rank"])
    assert gap < 0.5 * abs(np.mean(raw) - exact["centred_effective_rank"])
    assert np.median(values["centred_participation_ratio_pairs"]) == pytest.approx(pairs, rel=0.03)


@pytest.mark.parametrize("norms", [0.0, 0.5])
def test_intervals_cover(norms: float) -> None:
    """Centred trace and pair participation ratio of the population; nominal 90%, 400 repeats (±1.5%)."""
    rng = np.random.default_rng(7)
    scale = np.exp(norms**2)
    answers = {
        "centred_trace": float(LAW.sum()),
        "centred_participation_ratio_pairs": LAW.sum() ** 2 / (LAW**2).sum(),
    }
    hits = dict.fromkeys(answers, 0)
    for _ in range(400):
        sizes = np.exp(norms * rng.standard_normal((48, 1))) / scale
        phi = _features(rng, 48, 0.0) * sizes + 3.0
        for name, found in subsample_intervals(answers, phi @ phi.T).items():
            hits[name] += found.low <= answers[name] <= found.high
    assert all(0.84 <= count / 400 <= 0.97 for count in hits.values()), hits
