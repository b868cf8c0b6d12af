"""Intervals from standard errors: scipy's own quantiles, coverage that holds, levels that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ntkdiag.confidence import from_influence, quantile, require_level, symmetric
from ntkdiag.errors import InputError


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_quantiles_are_those_of_scipy(level: float) -> None:
    assert quantile(level, 7) == stats.t.interval(level, 7)[1]
    assert quantile(level) == stats.norm.interval(level)[1]
    assert quantile(level, 1e7) == pytest.approx(quantile(level))


def test_a_symmetric_interval() -> None:
    found = symmetric(2.0, 0.5, freedom=9, level=0.9, method="m")
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.9, 9, 2.0, 0.5))
    assert (found.value, found.stderr, found.level, found.method) == (2.0, 0.5, 0.9, "m")


def test_influence_gives_the_interval_of_a_logarithm() -> None:
    values = np.random.default_rng(0).lognormal(size=20)
    found = from_influence(float(values.mean()), values / values.mean(), level=0.9, method="m")
    error = stats.sem(values) / values.mean()
    ends = np.exp(stats.t.interval(0.9, 19, math.log(found.value), error))
    assert (found.low, found.high) == pytest.approx(tuple(ends))
    assert found.stderr == pytest.approx(stats.sem(values))


def test_nine_of_ten_intervals_hold_the_mean_of_normal_numbers() -> None:
    draws = np.random.default_rng(1).normal(3, 2, (4000, 5))
    hits = [
        found.low <= 3 <= found.high
        for found in (symmetric(float(x.mean()), float(stats.sem(x)), 4, 0.9, "") for x in draws)
    ]
    assert abs(np.mean(hits) - 0.9) < 4 * math.sqrt(0.9 * 0.1 / len(draws))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 90.0, math.nan])
def test_a_level_out_of_range_is_refused(level: float) -> None:
    for refused in (lambda: require_level(level), lambda: quantile(level, 3)):
        with pytest.raises(InputError, match="level: expected a number above 0 and below 1"):
            refused()
