"""Effective rank against n."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from spectra_populations import POWER_LAW, features, gram, slow_statistics

from ntkdiag.errors import InputError
from ntkdiag.spectra import effective_rank, rarefaction


def test_columns_sizes_and_ends() -> None:
    matrix = gram(POWER_LAW, 20, np.random.default_rng(0))
    curve = rarefaction(matrix)
    assert list(curve.columns) == ["samples", "effective_rank", "effective_rank_std"]
    assert list(curve["samples"]) == [1, 2, 4, 8, 16, 20]
    first, last = curve.iloc[0], curve.iloc[-1]
    assert first["effective_rank"] == pytest.approx(1)
    assert first["effective_rank_std"] == pytest.approx(0, abs=1e-12)
    assert last["effective_rank"] == pytest.approx(effective_rank(matrix))
    assert last["effective_rank_std"] == 0
    assert (curve["effective_rank"].diff().dropna() > 0).all()


@pytest.mark.parametrize(
    ("samples", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_default_sizes_end_at_n(samples: int, sizes: list[int]) -> None:
    assert list(rarefaction(np.eye(samples))["samples"]) == sizes


def test_means_are_those_of_all_subsets() -> None:
    phi = features(POWER_LAW, 12, np.random.default_rng(1))
    every = [slow_statistics(phi[list(c)])["effective_rank"] for c in itertools.combinations(range(12), 9)]
    curve = rarefaction(phi @ phi.T, [9], draws=3000)
    assert curve["effective_rank"][0] == pytest.approx(np.mean(every), abs=4 * np.std(every) / np.sqrt(3000))
    assert curve["effective_rank_std"][0] == pytest.approx(np.std(every), rel=0.05)


def test_independent_samples_read_their_number_and_copies_read_one() -> None:
    np.testing.assert_allclose(rarefaction(np.eye(10), [1, 3, 10])["effective_rank"], [1, 3, 10])
    np.testing.assert_allclose(rarefaction(np.ones((10, 10)), [1, 3, 10])["effective_rank"], [1, 1, 1])


def test_the_seed_decides() -> None:
    matrix = gram(POWER_LAW, 20, np.random.default_rng(0))
    assert rarefaction(matrix, seed=4).equals(rarefaction(matrix, seed=4))
    assert not rarefaction(matrix, seed=4).equals(rarefaction(matrix, seed=5))


@pytest.mark.parametrize("sizes", [[], [0, 2], [2, 2], [3, 2], [11], [2.5]])
def test_bad_sizes_are_refused(sizes: list[int]) -> None:
    with pytest.raises(InputError, match="sizes: expected"):
        rarefaction(np.eye(10), sizes)
