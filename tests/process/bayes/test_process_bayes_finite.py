"""The finite oracle against the plain softmax, in blocks, and where squares lose their digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.bayes import FiniteOracle, MixtureOracle, Oracle, finite

SCHEDULE = schedules.cosine()


def points(count: int = 40, shape: tuple[int, ...] = (2, 3)) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noisy(data: Tensor, level: float, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x0 = data[torch.randint(len(data), (count,), generator=generator)]
    return SCHEDULE.diffuse(x0, torch.randn(x0.shape, generator=generator, dtype=torch.float64), level)


def plain_softmax(data: Tensor, x: Tensor, alpha: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and per-dimension variance, point by point in extended precision."""
    flat, inputs = (tensor.flatten(1).numpy().astype(np.longdouble) for tensor in (data, x))
    difference = inputs[:, None] - np.longdouble(alpha) * flat
    logits = -(difference**2).sum(2) / (2 * np.longdouble(sigma) ** 2)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    mean = share @ flat
    spread = (share[..., None] * (flat - mean[:, None]) ** 2).sum((1, 2)) / flat.shape[1]
    return mean.astype(np.float64), spread.astype(np.float64)


@pytest.mark.parametrize("level", [-30.0, -4.0, 0.0, 3.0, 12.0, 36.0])
def test_posterior_is_the_plain_softmax(level: float) -> None:
    data = points()
    x = noisy(data, level, 9)
    alpha, sigma = SCHEDULE.alpha(level), SCHEDULE.sigma(level)
    mean, spread = plain_softmax(data, x, float(alpha), float(sigma))
    oracle = FiniteOracle(data)
    got = oracle.posterior_mean(x, alpha, sigma).flatten(1).numpy()
    np.testing.assert_allclose(got, mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(oracle.posterior_variance(x, alpha, sigma), spread, rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize("level", [28.0, 34.0])
def test_close_points_are_told_apart_at_high_snr(level: float) -> None:
    """Two points a few σ apart far from the origin: the expanded square would return noise."""
    alpha, sigma = float(SCHEDULE.alpha(level)), float(SCHEDULE.sigma(level))
    data = 3.0 + torch.tensor([[0.0, 0.0], [2 * sigma, 0.0], [0.0, 3 * sigma]], dtype=torch.float64)
    x = alpha * (data[:1] + 0.7 * sigma)
    mean, _ = plain_softmax(data, x, alpha, sigma)
    got = FiniteOracle(data).posterior_mean(x, alpha, sigma).numpy()
    # Positions relative to the first point, in σ; the inputs themselves are known to 3·2⁻⁵³.
    allowed = 20 * 2.0**-53 * 3 / sigma
    assert allowed < 0.05
    np.testing.assert_allclose((got - 3) / sigma, (mean - 3) / sigma, atol=allowed)
    assert 0.1 < (got[0, 0] - 3) / sigma < 1.9


def test_the_fast_distance_is_taken_only_where_it_is_exact_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    data = points()
    modes: list[str] = []
    cdist = torch.cdist

    def spy(left: Tensor, right: Tensor, compute_mode: str) -> Tensor:
        modes.append(compute_mode)
        return cdist(left, right, compute_mode=compute_mode)

    monkeypatch.setattr(torch, "cdist", spy)
    for level in (-80.0, 0.0, 30.0):
        FiniteOracle(data).posterior_mean(noisy(data, level, 3), SCHEDULE.alpha(level), SCHEDULE.sigma(level))
    fast, exact = "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"
    assert modes == [fast, fast, exact]


@pytest.mark.parametrize("level", [-3.0, 1.0, 30.0])
def test_blocks_bound_the_memory_and_do_not_change_the_answer(
    monkeypatch: pytest.MonkeyPatch, level: float
) -> None:
    data = points(101)
    x = noisy(data, level, 33)
    alpha, sigma = SCHEDULE.alpha(level), SCHEDULE.sigma(level)
    oracle = FiniteOracle(data)
    whole = oracle.posterior_mean(x, alpha, sigma), oracle.posterior_variance(x, alpha, sigma)
    sizes: list[int] = []
    cdist = torch.cdist

    def spy(left: Tensor, right: Tensor, compute_mode: str) -> Tensor:
        result = cdist(left, right, compute_mode=compute_mode)
        sizes.extend(tensor.numel() for tensor in (left, right, result))
        return result

    monkeypatch.setattr(torch, "cdist", spy)
    monkeypatch.setattr(finite, "_BLOCK", 120)
    torch.testing.assert_close(oracle.posterior_mean(x, alpha, sigma), whole[0], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(oracle.posterior_variance(x, alpha, sigma), whole[1], rtol=1e-9, atol=1e-13)
    assert max(sizes) <= 120 and len(sizes) > 30


def test_posterior_is_that_of_a_mixture_of_very_narrow_modes() -> None:
    data = points(12)
    narrow, exact = MixtureOracle(data, 1e-7), FiniteOracle(data)
    for level in (-2.0, 0.0, 2.0, 5.0):
        x = noisy(data, level, 7)
        alpha, sigma = SCHEDULE.alpha(level), SCHEDULE.sigma(level)
        torch.testing.assert_close(
            exact.posterior_mean(x, alpha, sigma),
            narrow.posterior_mean(x, alpha, sigma),
            rtol=1e-6,
            atol=1e-8,
        )
        close = {"rtol": 1e-5, "atol": 1e-11}
        torch.testing.assert_close(
            exact.posterior_variance(x, alpha, sigma), narrow.posterior_variance(x, alpha, sigma), **close
        )


def test_mmse_is_the_squared_error_over_draws() -> None:
    data, level = points(), 0.5
    generator = torch.Generator().manual_seed(7)
    oracle = FiniteOracle(data)
    x0 = oracle.sample(20_000, generator)
    epsilon = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(level), SCHEDULE.sigma(level)
    error = (oracle.posterior_mean(alpha * x0 + sigma * epsilon, alpha, sigma) - x0) ** 2
    per_draw = error.flatten(1).mean(1)
    value, claimed = oracle.mmse_estimate(level, samples=5000)
    allowed = 4 * math.hypot(float(per_draw.std()) / math.sqrt(20_000), float(claimed))
    assert float(value) == pytest.approx(float(per_draw.mean()), abs=allowed)
    assert float(claimed) < float(per_draw.std()) / math.sqrt(5000)


@pytest.mark.parametrize("level", [40.0, 80.0, math.inf])
def test_at_high_snr_it_memorises(level: float) -> None:
    data = points()
    oracle = FiniteOracle(data)
    x = noisy(data, level, 6)
    nearest = data[torch.cdist(x.flatten(1), data.flatten(1)).argmin(1)]
    got = oracle.posterior_mean(x, SCHEDULE.alpha(level), SCHEDULE.sigma(level))
    torch.testing.assert_close(got, nearest, rtol=1e-12, atol=1e-12)
    assert float(oracle.mmse(level, samples=20)) == pytest.approx(0, abs=1e-12)


def test_without_noise_a_strange_point_is_answered_by_its_nearest() -> None:
    data = torch.tensor([[0.0], [1.0]])
    got = FiniteOracle(data).posterior_mean(torch.tensor([[0.4], [1e3]]), 1.0, 0.0)
    assert got.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("level", [-80.0, -math.inf])
def test_without_signal_it_answers_the_mean(level: float) -> None:
    data = points()
    oracle = FiniteOracle(data)
    x = 5 * noisy(data, level, 6)
    got = oracle.posterior_mean(x, SCHEDULE.alpha(level), SCHEDULE.sigma(level))
    torch.testing.assert_close(got, data.mean(0).expand_as(got), rtol=1e-10, atol=1e-12)
    spread = data.flatten(1).var(0, correction=0).mean()
    assert float(oracle.mmse(level, samples=5)) == pytest.approx(float(spread), rel=1e-10)


def test_levels_may_differ_by_sample_even_from_end_to_end() -> None:
    data = points()
    levels = torch.tensor([-math.inf, -80.0, 0.0, 30.0, math.inf], dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(levels), SCHEDULE.sigma(levels)
    x = SCHEDULE.diffuse(data[:5], data[5:10], levels)
    together = FiniteOracle(data).posterior_mean(x, alpha, sigma)
    for row in range(5):
        alone = FiniteOracle(data).posterior_mean(x[row : row + 1], alpha[row], sigma[row])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-8, atol=1e-9)


def test_one_point_is_always_the_answer() -> None:
    oracle = FiniteOracle(torch.tensor([[3.0, 4.0]]))
    assert oracle.posterior_mean(torch.randn(2, 2), 0.3, 0.9).tolist() == [[3.0, 4.0]] * 2
    assert float(oracle.mmse(0.0, samples=4)) == 0.0


def test_it_is_an_oracle_and_keeps_dtype() -> None:
    oracle = FiniteOracle(points().float())
    assert isinstance(oracle, Oracle)
    assert (oracle.name, oracle.label) == ("finite", "memorises the training set")
    assert oracle.posterior_mean(torch.zeros(2, 2, 3), 0.5, 0.5).dtype == torch.float32
    assert oracle.posterior_mean(torch.zeros(0, 2, 3), 0.5, 0.5).shape == (0, 2, 3)


@pytest.mark.parametrize("bad", [torch.zeros(0, 2), torch.zeros(3), torch.zeros(3, 2).long()])
def test_bad_points_are_refused_in_words(bad: Tensor) -> None:
    with pytest.raises(InputError, match=r"floating-point \[M, ...\], M at least 1"):
        FiniteOracle(bad)
