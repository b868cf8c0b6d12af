"""The thirds of the buckets that claims compare, by hand and on orderings with ties; what a claim must declare."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from claims_cases import simulate
from hypothesis import given
from hypothesis import strategies as st

from ntkdiag.claims.evidence import gather
from ntkdiag.claims.trend import falls, signed, thirds
from ntkdiag.errors import InputError

NUMBERS = st.integers(-3, 3)  # few values, so that ties are common


@pytest.mark.parametrize(
    ("ordering", "weights"),
    [
        ([1, 2, 3], [-1, 0, 1]),
        ([3, 1, 2], [1, -1, 0]),
        ([1, 2], [-1, 1]),
        ([1, 2, 3, 4], [-1 / 2, -1 / 2, 1 / 2, 1 / 2]),  # thirds are rounded up
        ([1, 2, 3, 4, 5, 6], [-1 / 2, -1 / 2, 0, 0, 1 / 2, 1 / 2]),
        ([1, 5, 1], [-1 / 2, 1, -1 / 2]),  # both ends tie
        ([1, 2, 3, 3, 2, 1], [-1 / 2, 0, 1 / 2, 1 / 2, 0, -1 / 2]),
        ([1, 1, 1, 2, 3, 4], [-1 / 3, -1 / 3, -1 / 3, 0, 1 / 2, 1 / 2]),
        ([1, 2, 2, 2, 2, 3], [-1, 0, 0, 0, 0, 1]),  # what ties with both borders is in neither
        ([2, 2, 2, 2], [0, 0, 0, 0]),
        ([1, 1 + 1e-15, 1 - 1e-15], [0, 0, 0]),
    ],
)
def test_thirds(ordering: list[float], weights: list[float]) -> None:
    np.testing.assert_allclose(thirds(np.array(ordering, dtype=float)), weights)


@given(st.lists(NUMBERS, min_size=2, max_size=12))
def test_a_contrast_compares_means_and_never_opposes_its_ordering(values: list[int]) -> None:
    ordering = np.array(values, dtype=float)
    weights = thirds(ordering)
    assert weights.sum() == pytest.approx(0, abs=1e-12)
    if np.ptp(ordering) > 0 and weights.any():
        assert weights @ ordering > 0 and np.abs(weights).sum() == pytest.approx(2)
        np.testing.assert_allclose(thirds(-ordering), -weights)
    for a, b in itertools.combinations(range(len(values)), 2):
        assert weights[a] == weights[b] or ordering[a] != ordering[b]


def test_a_correlation_is_written_with_its_sign() -> None:
    assert [signed(tau) for tau in (-0.24, 0.0, 1.0)] == ["−0.24", "+0.00", "+1.00"]


def test_a_statistic_that_no_claim_declared_is_refused() -> None:
    evidence = gather(simulate("v"), ["trace"], seed=0)
    words = "statistic of a claim: expected one of trace; got 'stable_rank'. Name it where the claim is registered"
    with pytest.raises(InputError, match=words):
        falls("stable_rank", evidence)


def test_an_unknown_statistic_is_refused() -> None:
    with pytest.raises(InputError, match="statistic: expected one of"):
        gather(simulate("v"), ["rank"], seed=0)
