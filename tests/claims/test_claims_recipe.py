"""Verdicts over training seeds: size at the margin, power, Holm's correction, and slopes between targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ntkdiag.claims.recipe import (
    ABSENT,
    CONTRADICTED,
    INCONCLUSIVE,
    MARGIN,
    SUPPORTED,
    all_parts,
    between_targets,
    decide,
    holm,
    over_seeds,
)
from ntkdiag.errors import InputError

SEEDS, REPEATS, SPREAD = 5, 2000, 0.05


def _words(mean: float, spread: float = SPREAD, claims: int = 1) -> list[list[str]]:
    rng = np.random.default_rng(0)
    draws = mean + spread * rng.standard_normal((REPEATS, claims, SEEDS))
    return [list(decide({str(k): over_seeds(one) for k, one in enumerate(draw)}).values()) for draw in draws]


def test_p_values_are_those_of_scipy() -> None:
    effects = np.random.default_rng(1).normal(0.2, 0.1, 7)
    found = over_seeds(effects)
    assert found.p_supported == pytest.approx(
        stats.ttest_1samp(effects, MARGIN, alternative="greater").pvalue
    )
    assert found.p_contradicted == pytest.approx(
        stats.ttest_1samp(effects, -MARGIN, alternative="less").pvalue
    )
    inside = [
        stats.ttest_1samp(effects, -MARGIN, alternative="greater").pvalue,
        stats.ttest_1samp(effects, MARGIN, alternative="less").pvalue,
    ]
    assert found.p_absent == pytest.approx(max(inside))
    ends = stats.t.interval(0.9, 6, effects.mean(), stats.sem(effects))
    assert (found.low, found.high) == pytest.approx(ends)


@pytest.mark.parametrize(("mean", "wrong"), [(MARGIN, SUPPORTED), (-MARGIN, CONTRADICTED)])
def test_at_the_margin_a_definite_word_is_wrong_in_at_most_one_in_twenty(mean: float, wrong: str) -> None:
    words = [draw[0] for draw in _words(mean)]
    assert 0.03 < words.count(wrong) / REPEATS < 0.065  # binomial error 0.005
    assert words.count(ABSENT) / REPEATS < 0.065


@pytest.mark.parametrize("mean", [MARGIN, -MARGIN])
def test_holm_keeps_the_size_over_four_claims(mean: float) -> None:
    wrong = SUPPORTED if mean > 0 else CONTRADICTED
    assert np.mean([wrong in draw for draw in _words(mean, claims=4)]) < 0.065


def test_a_factor_of_one_and_a_half_is_found_both_ways_and_none_is_absent() -> None:
    assert np.mean([draw[0] == SUPPORTED for draw in _words(math.log(1.5), 0.15)]) > 0.9
    assert np.mean([draw[0] == CONTRADICTED for draw in _words(-math.log(1.5), 0.15)]) > 0.9
    assert np.mean([draw[0] == ABSENT for draw in _words(0.0, 0.02)]) > 0.9
    assert np.mean([draw[0] == INCONCLUSIVE for draw in _words(0.0, 0.5)]) > 0.9


def test_seeds_that_agree_exactly_are_decided_without_a_warning() -> None:
    same = {"up": over_seeds([0.3] * 5), "down": over_seeds([-0.3] * 5), "none": over_seeds([0.0] * 5)}
    assert decide(same) == {"up": SUPPORTED, "down": CONTRADICTED, "none": ABSENT}


def test_a_claim_of_two_parts_needs_both_and_falls_with_either() -> None:
    up, none, down = (over_seeds(mean + SPREAD * np.linspace(-1, 1, 5)) for mean in (0.5, 0.0, -0.5))
    assert decide({"C": all_parts([up, up])})["C"] == SUPPORTED
    assert decide({"C": all_parts([up, none])})["C"] == INCONCLUSIVE
    assert decide({"C": all_parts([up, down])})["C"] == CONTRADICTED
    assert all_parts([up, down]).effect == down.effect


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_too_few_seeds_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5 training seeds"):
        over_seeds([0.1, 0.2, 0.3, 0.4])
    with pytest.raises(InputError, match="finite"):
        over_seeds([0.1, 0.2, 0.3, 0.4, np.nan])


def _curves(
    rng: np.random.Generator, recipes: int, seeds: int, buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two rulers of every recipe, smooth in log-SNR."""
    axis = np.linspace(-3, 3, buckets)
    centres = rng.uniform(-3, 3, (2, recipes, 1))
    share, density = -np.square((axis - centres) / 4)
    return share, density


def test_slopes_are_those_that_were_planted_whatever_the_buckets_share() -> None:
    rng = np.random.default_rng(2)
    share, density = _curves(rng, 4, 6, 10)
    planted = rng.normal(0.2, 0.05, (6, 2))
    common = 3 * rng.standard_normal((1, 6, 10))  # of a seed and a bucket, the same for all recipes
    logs = common + planted[:, 0, None] * share[:, None] + planted[:, 1, None] * density[:, None]
    assert between_targets(logs, share, density) == pytest.approx(planted)


def test_slope_of_nothing_is_supported_in_one_in_twenty() -> None:
    rng = np.random.default_rng(3)
    share, _ = _curves(rng, 3, SEEDS, 10)
    supported = 0
    for _ in range(REPEATS):
        slopes = between_targets(0.1 * rng.standard_normal((3, SEEDS, 10)), share)[:, 0]
        supported += over_seeds(slopes, least=0).p_supported <= 0.05
    assert 0.03 < supported / REPEATS < 0.07


def test_rulers_that_cannot_be_told_apart_are_refused() -> None:
    rng = np.random.default_rng(4)
    share, _ = _curves(rng, 3, 5, 8)
    logs = rng.standard_normal((3, 5, 8))
    with pytest.raises(InputError, match="each in its own way"):
        between_targets(logs, share, 2 * share + rng.standard_normal(8))
    with pytest.raises(InputError, match="each in its own way"):
        between_targets(logs, np.broadcast_to(share[0], (3, 8)))
    with pytest.raises(InputError, match="recipes × buckets"):
        between_targets(logs, share[:, :5])
