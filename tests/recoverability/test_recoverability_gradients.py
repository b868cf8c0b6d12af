"""Gradient signal and cosine: unbiased over many draws of gradients with known mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ntkdiag.errors import InputError
from ntkdiag.recoverability import gradient_cosine, gradient_cosines, gradient_signal
from ntkdiag.recoverability.bucket_signals import bucket_blocks, signals, signals_without
from ntkdiag.spectra import evaluate

MEAN = np.array([0.3, -0.4, 0.0, 0.5])  # ‖E g‖² = 0.5
NOISE = 1.0
SEEDS = 4000


def draws(mean: np.ndarray = MEAN, samples: int = 6, seed: int = 0) -> np.ndarray:
    """Gram matrices of Gaussian gradients, [SEEDS, N, N]."""
    gradients = mean + NOISE * np.random.default_rng(seed).standard_normal((SEEDS, samples, len(mean)))
    return gradients @ gradients.swapaxes(1, 2)


def within(values: np.ndarray, truth: float, errors: float = 4.0) -> bool:
    """Whether the mean is within some of its standard errors of the truth; 0.15 away would be noticed."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert errors * error < 0.15
    return bool(abs(values.mean() - truth) < errors * error)


@pytest.mark.parametrize("samples", [2, 6, 12])
def test_signal_and_total_are_unbiased(samples: int) -> None:
    found = [gradient_signal(gram) for gram in draws(samples=samples)]
    assert within(np.array([one.signal for one in found]), 0.5)
    assert within(np.array([one.total for one in found]), 0.5 + 4 * NOISE**2)


def test_no_signal_is_zero_on_average_and_negative_half_the_time() -> None:
    signals = np.array([gradient_signal(gram).signal for gram in draws(0 * MEAN)])
    assert within(signals, 0.0)
    assert 0.4 < (signals < 0).mean() < 0.7


def test_the_ratio_is_that_of_signal_and_noise() -> None:
    gram = draws()[0]
    found = gradient_signal(gram)
    off = gram[~np.eye(6, dtype=bool)].mean()
    assert found.signal == pytest.approx(off) and found.total == pytest.approx(np.diag(gram).mean())
    assert found.ratio == pytest.approx(off / (np.diag(gram).mean() - off))
    assert found.ratio == pytest.approx(float(evaluate("gsnr", gram)))


def test_the_ratio_approaches_the_truth_with_samples() -> None:
    gradients = MEAN + NOISE * np.random.default_rng(3).standard_normal((4000, 4))
    assert gradient_signal(gradients @ gradients.T).ratio == pytest.approx(0.5 / (4 * NOISE**2), rel=0.2)


def test_gradients_that_all_agree_have_no_noise_to_compare_with() -> None:
    found = gradient_signal(np.full((3, 3), 2.0))
    assert (found.signal, found.total) == (2.0, 2.0) and math.isnan(found.ratio)


def paired(means: list[np.ndarray], shared: float, samples: int, seeds: int, seed: int = 0) -> np.ndarray:
    """Residual Grams of buckets whose noise is shared in part, as paired draws share it, [seeds, B·N, B·N]."""
    generator = np.random.default_rng(seed)
    common = generator.standard_normal((seeds, samples, 4))
    own = generator.standard_normal((len(means), seeds, samples, 4))
    parts = [m + NOISE * (math.sqrt(shared) * common + math.sqrt(1 - shared) * o)
             for m, o in zip(means, own, strict=True)]  # fmt: skip
    rows = np.concatenate(parts, 1)
    return rows @ rows.swapaxes(1, 2)


def test_the_product_of_mean_gradients_is_unbiased_though_the_draws_are_paired() -> None:
    """Numerator of the cosine; with i = j left in, the shared noise would add NOISE²·4·0.8/N."""
    other = np.array([0.5, 0.5, 0.1, 0.0])
    found = [signals(bucket_blocks(gram, 2)) for gram in paired([MEAN, other], 0.8, 8, SEEDS)]
    assert within(np.array([signal[0, 1] for signal in found]), float(MEAN @ other), errors=4.5)
    assert within(np.array([signal[0, 0] for signal in found]), float(MEAN @ MEAN), errors=4.5)


def test_signals_without_a_sample_are_those_of_the_other_samples() -> None:
    blocks = paired([MEAN, -MEAN, 2 * MEAN], 0.5, 7, 1)[0].reshape(3, 7, 3, 7)
    for i, found in enumerate(signals_without(blocks)):
        rest = np.delete(np.delete(blocks, i, 1), i, 3)
        np.testing.assert_allclose(found, signals(rest), rtol=1e-10)


def test_the_cosine_approaches_the_truth_with_samples() -> None:
    other = np.array([-0.5, 0.5, 0.1, 0.0])
    gram = paired([MEAN, other, 2 * MEAN], 0.5, 3000, 1)[0]
    found = gradient_cosine(gram, 3)
    np.testing.assert_allclose(np.diag(found), 1.0)
    np.testing.assert_allclose(found, found.T)
    truth = MEAN @ other / np.linalg.norm(MEAN) / np.linalg.norm(other)
    assert truth < -0.5 and found[0, 1] == pytest.approx(truth, abs=0.1)
    assert found[0, 2] == pytest.approx(1.0, abs=0.1)


def test_a_bucket_without_signal_has_no_cosine() -> None:
    ones, zeros = np.full((9, 9), 1.0), np.zeros((9, 9))
    found = gradient_cosines(np.block([[ones, zeros], [zeros, np.eye(9)]]), 2)
    assert (found.value[0, 0], found.low[0, 0], found.high[0, 0]) == (1.0, 1.0, 1.0)
    for part in (found.value, found.low, found.high):
        assert np.isnan(part[0, 1]) and np.isnan(part[1, 1])


def test_one_bucket_is_the_identity_and_three_samples_say_nothing() -> None:
    np.testing.assert_allclose(gradient_cosine(np.ones((4, 4)), 1), [[1.0]])
    assert np.isnan(gradient_cosine(np.ones((3, 3)), 1)).all()


@pytest.mark.parametrize(("signal", "given"), [(0.01, (0, 0.1)), (0.1, (0.3, 0.7)), (0.5, (0.95, 1))])
def test_a_cosine_is_given_where_it_is_known_and_its_interval_is_right(
    signal: float, given: tuple[float, float]
) -> None:
    """Truth 0.76, noise 1/k; at a GSNR of 0.01 the plain ratio is NaN in a third of draws, beyond ±1 in a fifth."""
    scale = np.arange(1, 51) ** -0.5
    size = math.sqrt(signal * np.square(scale).sum())
    truth = 0.76
    generator = np.random.default_rng(2)
    means = np.zeros((2, 50))
    means[0, 0], means[1, :2] = size, (truth * size, math.sqrt(1 - truth**2) * size)
    known, wrong = [], []
    for _ in range(250):
        common, *own = generator.standard_normal((3, 64, 50))
        rows = np.concatenate([m + (0.8 * common + 0.6 * o) * scale for m, o in zip(means, own, strict=True)])
        found = gradient_cosines(rows @ rows.T, 2)
        value, low, high = found.value[0, 1], found.low[0, 1], found.high[0, 1]
        known.append(np.isfinite(value))
        wrong.append(known[-1] and not low <= truth <= high)
        if known[-1]:
            assert -1 <= low <= value <= high <= 1 and high - low <= 1
            assert found.value[1, 0] == pytest.approx(value)
    assert given[0] <= np.mean(known) <= given[1]
    assert np.mean(wrong) <= 0.13  # of 250 draws at 10%: two standard errors are 4%


def test_refusals() -> None:
    with pytest.raises(InputError, match="samples: expected at least 2 for a gradient signal; got 1"):
        gradient_signal(np.ones((1, 1)))
    with pytest.raises(InputError, match=r"at least 2 .*; got 1"):
        gradient_cosine(np.ones((3, 3)), 3)
    with pytest.raises(InputError, match="residual Gram: expected rows for 2 buckets; got 5 rows"):
        gradient_cosine(np.ones((5, 5)), 2)
