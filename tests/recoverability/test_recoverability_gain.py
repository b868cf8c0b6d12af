"""Gain: its closed form for gradients with known means, its bias, its interval, and that it is the best weight."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ntkdiag.errors import InputError
from ntkdiag.recoverability import gradient_gain, gradient_signal

# Mean gradients of three buckets in four dimensions; the third opposes the others.
MEANS = np.array([[0.6, -0.8, 0.0, 0.5], [0.5, 0.5, 0.1, 0.0], [-0.5, 0.4, 0.0, 0.1]])
NOISE = np.array([1.0, 0.5, 2.0])  # standard deviation of each coordinate, by bucket
MASS = np.array([0.5, 0.3, 0.2])
ALIGNMENT = MEANS @ (MASS @ MEANS)
ENERGY = np.square(MEANS).sum(1) + 4 * NOISE**2
SHARED = 0.6  # share of the noise's variance that the buckets have in common, as paired draws do


def grams(samples: int, seeds: int, seed: int = 0) -> np.ndarray:
    """Residual Grams, [seeds, B·N, B·N]."""
    generator = np.random.default_rng(seed)
    common = generator.standard_normal((seeds, samples, 4))
    own = generator.standard_normal((3, seeds, samples, 4))
    parts = [
        mean + spread * (math.sqrt(SHARED) * common + math.sqrt(1 - SHARED) * each)
        for mean, spread, each in zip(MEANS, NOISE, own, strict=True)
    ]
    rows = np.concatenate(parts, 1)
    return rows @ rows.swapaxes(1, 2)


def expected_bias(samples: int) -> np.ndarray:
    """gain · (Var v/v² − Cov(c, v)/(c v)) in closed form for these normal gradients, to first order in 1/N.

    With g = m + s n: Var‖g‖² = 4 s²‖m‖² + 2 s⁴·4. The first-order part of c in one sample is ⟨g_b, ḡ⟩ + ⟨m_b, Σ_a p_a g_a⟩;
    its covariance with ‖g_b‖² is that with 2⟨m_b, s_b n_b⟩, in which n_a and n_b have the correlation SHARED for a ≠ b.
    """
    whole = MASS @ MEANS
    own = np.square(MEANS).sum(1)
    var_energy = 4 * NOISE**2 * own + 8 * NOISE**4
    correlation = np.where(np.eye(3) > 0, 1.0, SHARED)
    reach = NOISE * (
        correlation @ (MASS * NOISE)
    )  # covariance of a coordinate of g_b with one of Σ_a p_a g_a
    covariance = 2 * (NOISE**2 * (MEANS @ whole) + reach * own)
    value = ALIGNMENT / ENERGY
    return value * (var_energy / ENERGY**2 - covariance / (ALIGNMENT * ENERGY)) / samples


def test_alignment_and_energy_are_unbiased_and_the_ratio_has_the_bias_of_the_formula() -> None:
    samples, seeds = 12, 2000
    found = [gradient_gain(gram, MASS) for gram in grams(samples, seeds)]
    for part, truth in (("alignment", ALIGNMENT), ("energy", ENERGY)):
        values = np.array([getattr(one, part) for one in found])
        error = values.std(0) / math.sqrt(seeds)
        assert (np.abs(values.mean(0) - truth) < 4.5 * error).all()
        assert (error < 0.05 * truth.max()).all()
    truth = ALIGNMENT / ENERGY
    # What is linear in the two unbiased numbers has mean zero; without it the bias stands out from the noise.
    beyond = np.array(
        [one.value - truth * (1 + one.alignment / ALIGNMENT - one.energy / ENERGY) for one in found]
    )
    bias, error, first_order = beyond.mean(0), beyond.std(0) / math.sqrt(seeds), expected_bias(samples)
    assert (np.abs(bias[:2]) > 5 * error[:2]).all()
    # The next order is 1/N of it.
    assert (np.abs(bias - first_order) < 4.5 * error + 2 / samples * np.abs(first_order)).all()


def test_with_entries_of_one_sample_left_in_the_shared_noise_would_be_taken_for_alignment() -> None:
    """What the estimator must leave out is here larger than what it estimates."""
    left_in = MASS @ (np.where(np.eye(3) > 0, 1.0, SHARED) * np.outer(NOISE, NOISE) * 4)
    found = np.mean([gradient_gain(gram, MASS).alignment for gram in grams(3, 5000, seed=1)], 0)
    assert (np.abs(found - ALIGNMENT) < 0.1 * left_in / 3).all()


def test_the_interval_covers_the_truth() -> None:
    seeds = 400
    inside, truth = np.zeros(3), ALIGNMENT / ENERGY
    for gram in grams(48, seeds, seed=2):
        found = gradient_gain(gram, MASS, level=0.9)
        inside += (found.low <= truth) & (found.high >= truth)
    assert (np.abs(inside / seeds - 0.9) < 0.06).all()


def test_no_weight_lowers_the_objective_more_for_its_noise() -> None:
    def merit(weight: np.ndarray) -> float:
        return float((MASS * weight * ALIGNMENT).sum() ** 2 / (MASS * weight**2 * ENERGY).sum())

    best = merit(ALIGNMENT / ENERGY)
    others = np.random.default_rng(0).lognormal(size=(200, 3)) * ALIGNMENT / ENERGY
    assert max(map(merit, others)) < best
    assert merit(-7 * ALIGNMENT / ENERGY) == pytest.approx(best)


def test_one_bucket_is_the_share_of_signal_and_no_scale_matters() -> None:
    gram = grams(9, 1, seed=3)[0]
    alone = gradient_gain(gram[:9, :9], [2.0])
    signal = gradient_signal(gram[:9, :9])
    assert alone.value[0] == pytest.approx(signal.signal / signal.total)
    scaled = gradient_gain(1e6 * gram, 5 * MASS)
    np.testing.assert_allclose(scaled.value, gradient_gain(gram, MASS).value)


def test_a_bucket_that_is_never_trained_still_has_a_gain() -> None:
    found = gradient_gain(grams(50, 1, seed=4)[0], [1.0, 0.0, 1.0])
    assert np.isfinite(found.value).all()


def test_edges() -> None:
    few = gradient_gain(grams(3, 1)[0], MASS)
    assert np.isfinite(few.value).all() and np.isnan(few.low).all() and np.isnan(few.high).all()
    assert np.isnan(gradient_gain(np.zeros((8, 8)), [1.0, 1.0]).value).all()
    with pytest.raises(InputError, match="at least 2 for a gradient signal; got 1"):
        gradient_gain(np.eye(3), MASS)
    with pytest.raises(InputError, match="rows for 3 buckets; got 4 rows"):
        gradient_gain(np.eye(4), MASS)
    for bad in ([0.0, 0.0], [1.0, -0.1], [1.0, math.nan], [[1.0]]):
        with pytest.raises(InputError, match="mass of the buckets"):
            gradient_gain(np.eye(4), bad)
