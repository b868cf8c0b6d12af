"""Extrapolation in N: the limit of a saturating spectrum, the refusal to invent one, words of errors."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.coverage.extrapolation import extrapolate
from ntkdiag.errors import InputError


def gram(samples: int, variances: np.ndarray, seed: int) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(samples, len(variances))) * np.sqrt(variances)
    return features @ features.T


def test_the_limit_is_nearer_to_the_population_than_the_rank_at_n():
    """20 equal directions: the population's effective rank is 20, and 48 samples read less."""
    found = [extrapolate(gram(48, np.ones(20), seed), seed=seed) for seed in range(10)]
    limits = np.array([one.limit.value for one in found])
    assert abs(limits.mean() - 20) < 4
    assert np.mean([one.misfit for one in found]) < 0.05
    assert all(one.limit.low < one.limit.value < one.limit.high for one in found)


def test_orthogonal_samples_have_no_limit():
    """The rank of the identity is n for every n: the curve never bends."""
    found = extrapolate(np.eye(32))
    assert found.limit.value > 1e3
    assert not np.isfinite(found.limit.high) or found.limit.high > 1e3


def test_equal_samples_have_rank_one_at_once():
    found = extrapolate(np.ones((32, 32)))
    assert found.limit.value == pytest.approx(1.0, abs=1e-6)
    assert found.half == pytest.approx(0.0, abs=1e-3)


def test_too_few_samples_are_refused():
    with pytest.raises(InputError, match="at least 16"):
        extrapolate(np.eye(15))
