"""Rank correlation, permuted labels and Holm's correction against scipy, brute force and hand computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ntkdiag.claims import p_values
from ntkdiag.claims.p_values import holm, kendall, permutation_p_value

NUMBERS = st.integers(-3, 3)  # few values, so that ties are common


# --- Kendall's τ


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=9))
def test_kendall_is_scipys_tau_b(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    expected = stats.kendalltau(a, b).statistic
    assert kendall(a, b) == pytest.approx(0.0 if math.isnan(expected) else expected)


def test_kendall_takes_stacks() -> None:
    a = np.arange(6.0)
    rows = np.random.default_rng(0).standard_normal((3, 4, 6))
    found = kendall(a, rows)
    assert found.shape == (3, 4)
    assert found[1, 2] == pytest.approx(stats.kendalltau(a, rows[1, 2]).statistic)


def test_kendall_of_a_constant_is_zero_also_up_to_rounding() -> None:
    a = np.arange(5.0)
    for constant in (np.ones(5), 1 + 1e-15 * np.array([0, 1, -1, 2, 0])):
        assert kendall(a, constant) == 0 and kendall(constant, a) == 0


def test_mirrored_values_tie_though_they_differ_by_rounding() -> None:
    exact = np.array([1.0, 2, 3, 2, 1])
    assert kendall(exact * (1 + 1e-14 * np.arange(5)), np.arange(5.0)) == 0.0
    assert kendall(exact * (1 + 1e-6 * np.arange(5)), np.arange(5.0)) > 0.1


# --- permutation p-values


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_few_buckets_have_an_exact_p_value(count: int) -> None:
    ordering = np.arange(float(count))
    values = np.random.default_rng(count).standard_normal(count)
    taus = [
        stats.kendalltau(ordering, values[list(order)]).statistic
        for order in itertools.permutations(range(count))
    ]
    expected = np.mean(np.array(taus) >= stats.kendalltau(ordering, values).statistic - 1e-12)
    assert permutation_p_value(lambda v: kendall(ordering, v), values, seed=0) == pytest.approx(expected)
    best = permutation_p_value(lambda v: kendall(ordering, v), ordering, seed=0)
    assert best == pytest.approx(1 / math.factorial(count))
    assert permutation_p_value(lambda v: kendall(ordering, v), -ordering, seed=0) == 1.0


def test_the_exact_p_value_is_scipys() -> None:
    ordering, values = np.arange(7.0), np.array([0.0, 2, 1, 3, 5, 4, 6])
    expected = stats.kendalltau(ordering, values, method="exact", alternative="greater").pvalue
    assert permutation_p_value(lambda v: kendall(ordering, v), values, seed=0) == pytest.approx(expected)


def test_ties_of_the_ordering_count_as_often_as_they_can_be_swapped() -> None:
    ordering = np.array([1.0, 2, 3, 2, 1])
    found = permutation_p_value(lambda v: kendall(ordering, v), ordering + 0.01 * np.arange(5), seed=0)
    assert found == pytest.approx(4 / 120)


def test_many_buckets_have_a_sampled_p_value_that_is_never_zero() -> None:
    ordering = np.arange(12.0)
    assert permutation_p_value(lambda v: kendall(ordering, v), ordering, seed=0, draws=99) == pytest.approx(
        1 / 100
    )
    values = np.random.default_rng(1).standard_normal(12)
    expected = stats.kendalltau(ordering, values, method="exact", alternative="greater").pvalue
    found = permutation_p_value(lambda v: kendall(ordering, v), values, seed=0)
    assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / 9999)
    assert found == permutation_p_value(lambda v: kendall(ordering, v), values, seed=0)
    assert found != permutation_p_value(lambda v: kendall(ordering, v), values, seed=1)


def test_memory_is_bounded_without_changing_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    ordering, values = np.arange(9.0), np.random.default_rng(2).standard_normal(9)
    seen: list[int] = []

    def score(v: np.ndarray) -> np.ndarray:
        seen.append(v.size)
        return kendall(ordering, v)

    whole = permutation_p_value(score, values, seed=0, draws=500)
    monkeypatch.setattr(p_values, "_NUMBERS_AT_ONCE", 900)
    seen.clear()
    assert permutation_p_value(score, values, seed=0, draws=500) == whole
    assert max(seen) * 9 < 1000 and len(seen) > 40


@pytest.mark.parametrize("count", [5, 9])
def test_p_values_are_uniform_where_there_is_no_trend(count: int) -> None:
    generator = np.random.default_rng(0)
    ordering = np.arange(float(count))
    found = np.array(
        [
            permutation_p_value(
                lambda v: kendall(ordering, v), generator.standard_normal(count), seed=s, draws=99
            )
            for s in range(400)
        ]
    )
    for level in (0.05, 0.2, 0.5):
        assert (found <= level).mean() < level + 3 * math.sqrt(level * (1 - level) / 400)
    assert 0.4 < found.mean() < 0.65


# --- Holm


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.001, 0.02, 0.02, 0.9]), [0.004, 0.06, 0.06, 0.9])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.03]), [0.03])
    assert holm([]).shape == (0,)


def test_what_was_not_tested_does_not_count() -> None:
    np.testing.assert_allclose(holm([0.01, math.nan, 0.04]), [0.02, math.nan, 0.04])
    assert np.isnan(holm([math.nan, math.nan])).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_steps_down(p_values: list[float]) -> None:
    """Rejections at any level are those of the step-down procedure itself."""
    adjusted = holm(p_values)
    assert (adjusted >= np.array(p_values)).all() and (adjusted <= 1).all()
    assert (
        adjusted <= np.minimum(1, len(p_values) * np.array(p_values)) + 1e-15
    ).all()  # no worse than Bonferroni
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for position, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[index] * (len(p_values) - position) > level:
                break
            rejected.add(index)
        assert rejected == set(np.flatnonzero(adjusted <= level))
