"""The Gaussian oracle and the linear MMSE against textbook formulas, draws and limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.bayes import GaussianOracle, Oracle, linear_mmse

LEVELS = torch.tensor([-12.0, -2.0, 0.0, 1.5, 7.0], dtype=torch.float64)


def random_oracle(rank: int = 6) -> tuple[GaussianOracle, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(6, rank, generator=generator, dtype=torch.float64)
    mean, covariance = torch.randn(6, generator=generator, dtype=torch.float64), factor @ factor.T
    return GaussianOracle(mean.reshape(2, 3), covariance), mean, covariance


def test_it_is_an_oracle() -> None:
    oracle, _, _ = random_oracle()
    assert isinstance(oracle, Oracle)
    assert (oracle.name, oracle.label) == ("gaussian", "exact")


@pytest.mark.parametrize("rank", [6, 3])
@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.6), (0.3, 0.7), (1.0, 5.0), (0.9, 0.01)])
def test_posterior_mean_and_variance_are_the_regression_formulas(
    rank: int, alpha: float, sigma: float
) -> None:
    """E[x0|x] = μ + αΣ(α²Σ + σ²I)⁻¹(x − αμ), Cov = Σ − α²Σ(α²Σ + σ²I)⁻¹Σ."""
    oracle, mean, covariance = random_oracle(rank)
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noisy = alpha**2 * covariance + sigma**2 * torch.eye(6, dtype=torch.float64)
    gain = alpha * torch.linalg.solve(noisy, covariance).T
    expected = mean + (x.reshape(5, 6) - alpha * mean) @ gain.T
    got = oracle.posterior_mean(x, alpha, sigma)
    torch.testing.assert_close(got, expected.reshape(5, 2, 3), rtol=1e-9, atol=1e-9)
    left = torch.trace(covariance - alpha * gain @ covariance) / 6
    variance = oracle.posterior_variance(x, alpha, sigma)
    torch.testing.assert_close(variance, left.expand(5), rtol=1e-6, atol=1e-9)


def test_mmse_is_the_error_of_the_posterior_mean_over_draws() -> None:
    oracle, _, _ = random_oracle(3)
    generator = torch.Generator().manual_seed(2)
    x0 = oracle.sample(20_000, generator)
    epsilon = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    schedule = schedules.cosine()
    for level in LEVELS:
        alpha, sigma = schedule.alpha(level), schedule.sigma(level)
        error = (oracle.posterior_mean(alpha * x0 + sigma * epsilon, alpha, sigma) - x0) ** 2
        per_draw = error.flatten(1).mean(1)
        standard_error = float(per_draw.std()) / math.sqrt(20_000)
        assert float(oracle.mmse(level)) == pytest.approx(float(per_draw.mean()), abs=5 * standard_error)


def test_samples_have_the_mean_and_covariance_asked_for() -> None:
    oracle, mean, covariance = random_oracle()
    draws = oracle.sample(40_000, torch.Generator().manual_seed(3)).reshape(-1, 6)
    scale = float(covariance.abs().max())
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=5 * math.sqrt(scale / 40_000))
    torch.testing.assert_close(torch.cov(draws.T), covariance, rtol=0, atol=0.04 * scale)


def test_mmse_of_a_closed_form_has_no_standard_error() -> None:
    oracle, _, _ = random_oracle()
    value, error = oracle.mmse_estimate(LEVELS)
    assert torch.equal(value, oracle.mmse(LEVELS)) and not bool(error.any())


def test_linear_mmse_is_the_published_formula() -> None:
    spread = torch.tensor([0.0, 0.3, 2.0, 50.0], dtype=torch.float64)
    schedule = schedules.cosine()
    for level in LEVELS:
        a, s = schedule.alpha(level) ** 2, schedule.sigma(level) ** 2
        expected = (spread * s / (a * spread + s)).mean()
        torch.testing.assert_close(linear_mmse(spread, level), expected, rtol=1e-12, atol=0)


def test_linear_mmse_keeps_its_shape_and_is_exact_at_the_ends() -> None:
    spread = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float32)
    ends = torch.tensor([[-math.inf, -80.0], [80.0, math.inf]])
    got = linear_mmse(spread, ends)
    assert got.dtype == torch.float64 and got.shape == (2, 2)
    expected = torch.tensor([[4 / 3, 4 / 3], [2 / 3 * math.exp(-80), 0.0]], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


def test_i_mmse() -> None:
    """dI/dSNR = ½ D·MMSE (Guo, Shamai & Verdú 2005), with I = ½ Σ ln(1 + SNR s)."""
    oracle, _, _ = random_oracle()
    step = 1e-5
    for snr in (0.01, 1.0, 30.0):
        information = [
            0.5 * float(torch.log1p((snr + offset) * oracle.principal.variances).sum())
            for offset in (-step * snr, step * snr)
        ]
        slope = (information[1] - information[0]) / (2 * step * snr)
        assert slope == pytest.approx(0.5 * 6 * float(oracle.mmse(math.log(snr))), rel=1e-7)


def test_a_direction_without_spread_is_known_even_without_noise() -> None:
    oracle = GaussianOracle(torch.tensor([1.0, -2.0]), torch.diag(torch.tensor([4.0, 0.0])))
    x = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(oracle.posterior_mean(x, 1.0, 0.0), x)
    assert float(oracle.posterior_variance(x, 1.0, 0.0)) == 0.0
    torch.testing.assert_close(oracle.posterior_mean(x, 0.0, 1.0), torch.tensor([[1.0, -2.0]]).double())


def test_levels_may_differ_by_sample() -> None:
    oracle, _, _ = random_oracle()
    x = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1))
    alpha, sigma = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.5, 0.9])
    together = oracle.posterior_mean(x, alpha, sigma)
    assert together.dtype == torch.float32
    for row in range(3):
        alone = oracle.posterior_mean(x[row : row + 1], float(alpha[row]), float(sigma[row]))
        torch.testing.assert_close(together[row], alone[0])


def test_numbers_are_taken_in_double_precision() -> None:
    """0.1 in float32 is off by 1.5e-9, which at low noise is far above rounding."""
    oracle = GaussianOracle(torch.zeros(1), torch.ones(1, 1))
    x = torch.ones(1, 1, dtype=torch.float64)
    assert float(oracle.posterior_mean(x, 0.1, 0.3)) == pytest.approx(0.1 / (0.01 + 0.09), rel=1e-14)


def test_fit_is_the_best_linear_denoiser_of_the_points() -> None:
    generator = torch.Generator().manual_seed(5)
    points = (torch.rand(500, 1, 2, generator=generator) > 0.3).float() * torch.tensor([1.0, 5.0])
    oracle = GaussianOracle.fit(points)
    assert oracle.label == "linear lower bound"
    variance = points.double().flatten(1).var(0, correction=0)
    assert float(oracle.mmse(-math.inf)) == pytest.approx(float(variance.mean()), rel=1e-9)
    torch.testing.assert_close(
        oracle.posterior_mean(points[:1], 0.0, 1.0), points.mean(0, keepdim=True), rtol=1e-6, atol=0
    )


def test_fit_takes_one_dimension_and_no_sample_at_all_is_answered() -> None:
    oracle = GaussianOracle.fit(torch.tensor([[1.0], [3.0]]))
    assert float(oracle.mmse(-math.inf)) == pytest.approx(1.0)
    assert oracle.posterior_mean(torch.zeros(0, 1), 0.5, 0.5).shape == (0, 1)
    assert oracle.sample(0, torch.Generator()).shape == (0, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: GaussianOracle(torch.zeros(2), torch.eye(3)), r"covariance: expected shape \(2, 2\)"),
        (lambda: GaussianOracle(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (lambda: GaussianOracle(torch.zeros(2), torch.diag(torch.tensor([1.0, -1.0]))), "eigenvalue; got -1"),
        (lambda: GaussianOracle.fit(torch.zeros(1, 3)), "at least 2 samples; got 1"),
        (
            lambda: random_oracle()[0].posterior_mean(torch.zeros(4, 6), 1.0, 1.0),
            "gaussian oracle: .*\\[4, 6\\]",
        ),
        (
            lambda: random_oracle()[0].posterior_mean(torch.zeros(4, 2, 3), torch.ones(3), 1.0),
            "one number or 4",
        ),
        (lambda: random_oracle()[0].sample(-1, torch.Generator()), "count"),
    ],
)
def test_bad_input_is_refused_in_words(call: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()  # type: ignore[operator]
