"""The mixture oracle against one-dimensional quadrature, identities of the posterior, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, distributions

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.bayes import GaussianOracle, MixtureOracle, Oracle, linear_mmse, mixture

MEANS, STD, WEIGHTS = [-1.5, 0.2, 2.0], [0.1, 0.5, 0.2], [0.5, 0.2, 0.3]
SCHEDULE = schedules.cosine()
# Trapezoids on smooth functions that vanish at both ends converge faster than any power of the spacing.
GRID = np.linspace(-9, 9, 3601)
SPACING = GRID[1] - GRID[0]


def line() -> MixtureOracle:
    """Three unequal modes on a line."""
    return MixtureOracle(
        torch.tensor(MEANS)[:, None].double(), torch.tensor(STD).double(), torch.tensor(WEIGHTS)
    )


def plane() -> MixtureOracle:
    """Four modes in shape (2, 1), each with its own spread in each direction."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(4, 2, 1, generator=generator, dtype=torch.float64)
    std = 0.1 + torch.rand(4, 2, 1, generator=generator, dtype=torch.float64)
    return MixtureOracle(means, std, torch.tensor([1.0, 2.0, 3.0, 4.0]))


def prior_density(x0: np.ndarray) -> np.ndarray:
    """The line's density, written out a second time."""
    parts = [
        w * np.exp(-(((x0 - m) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))
        for m, s, w in zip(MEANS, STD, WEIGHTS, strict=True)
    ]
    return np.sum(parts, axis=0)


def joint_density(level: float, x: np.ndarray) -> np.ndarray:
    """p(x0) p(x | x0) on GRID × x."""
    alpha, sigma = float(SCHEDULE.alpha(level)), float(SCHEDULE.sigma(level))
    likelihood = np.exp(-(((x[None] - alpha * GRID[:, None]) / sigma) ** 2) / 2)
    return prior_density(GRID)[:, None] * likelihood / (sigma * math.sqrt(2 * math.pi))


def noisy(oracle: MixtureOracle, level: float, count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Draws (x0, x)."""
    generator = torch.Generator().manual_seed(seed)
    x0 = oracle.sample(count, generator)
    return x0, SCHEDULE.diffuse(x0, torch.randn(x0.shape, generator=generator, dtype=torch.float64), level)


def answer(oracle: MixtureOracle, x: Tensor, level: float) -> Tensor:
    return oracle.posterior_mean(x, SCHEDULE.alpha(level), SCHEDULE.sigma(level))


# --- against quadrature --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [-6.0, -1.0, 1.0, 4.0])
def test_posterior_and_density_by_quadrature(level: float) -> None:
    x = np.linspace(-3, 3, 25)
    joint = joint_density(level, x)
    evidence = joint.sum(0) * SPACING
    mean = (joint * GRID[:, None]).sum(0) * SPACING / evidence
    variance = (joint * (GRID[:, None] - mean) ** 2).sum(0) * SPACING / evidence
    inputs = torch.from_numpy(x)[:, None]
    alpha, sigma = SCHEDULE.alpha(level), SCHEDULE.sigma(level)
    oracle = line()
    np.testing.assert_allclose(oracle.posterior_mean(inputs, alpha, sigma)[:, 0], mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(oracle.posterior_variance(inputs, alpha, sigma), variance, rtol=1e-6)
    np.testing.assert_allclose(
        oracle.log_density(inputs, alpha, sigma), np.log(evidence), rtol=1e-6, atol=1e-6
    )


def mmse_by_quadrature(level: float) -> float:
    """∫ p(x) Var(x0 | x) dx with the oracle's own exact functions of x, which the test above checks."""
    oracle, alpha, sigma = line(), SCHEDULE.alpha(level), SCHEDULE.sigma(level)
    inputs = torch.from_numpy(GRID)[:, None]
    density = oracle.log_density(inputs, alpha, sigma).exp()
    return float((density * oracle.posterior_variance(inputs, alpha, sigma)).sum()) * SPACING


@pytest.mark.parametrize("level", [-4.0, 0.0, 2.0, 5.0])
def test_monte_carlo_mmse_agrees_with_quadrature_within_its_error(level: float) -> None:
    exact = mmse_by_quadrature(level)
    for seed in range(3):
        value, error = line().mmse_estimate(level, samples=2000, seed=seed)
        assert abs(float(value) - exact) < 4 * float(error)
    assert 0 < float(error) < 0.05 * exact


def test_the_standard_error_is_that_of_repeated_estimates() -> None:
    pairs = [line().mmse_estimate(1.0, samples=200, seed=seed) for seed in range(200)]
    spread = float(torch.stack([value for value, _ in pairs]).std())
    claimed = float(torch.stack([error for _, error in pairs]).mean())
    # A standard deviation from 200 values is itself known to 5%.
    assert claimed == pytest.approx(spread, rel=0.2)


def test_i_mmse_by_quadrature() -> None:
    """dI/dSNR = ½ MMSE in nats (Guo, Shamai & Verdú 2005), I = h(x) − h(x | x0), D = 1."""

    def information(log_snr: float) -> float:
        alpha, sigma = SCHEDULE.alpha(log_snr), SCHEDULE.sigma(log_snr)
        log_density = line().log_density(torch.from_numpy(GRID)[:, None], alpha, sigma)
        entropy = -float((log_density.exp() * log_density).sum()) * SPACING
        return entropy - 0.5 * math.log(2 * math.pi * math.e * float(sigma) ** 2)

    for level in (-3.0, 0.0, 2.0, 4.0):
        step = 1e-3
        slope = (information(level + step) - information(level - step)) / (2 * step * math.exp(level))
        assert slope == pytest.approx(0.5 * mmse_by_quadrature(level), rel=1e-5)


def test_log_prob_is_the_density_of_the_data() -> None:
    points = np.linspace(-2.5, 2.5, 41)
    got = line().log_prob(torch.from_numpy(points)[:, None])
    np.testing.assert_allclose(got.exp(), prior_density(points), rtol=1e-6)


# --- against torch.distributions and the Gaussian oracle ---------------------------------------------------


def test_density_of_the_plane_is_that_of_torch_distributions() -> None:
    oracle, generator = plane(), torch.Generator().manual_seed(0)
    means = torch.randn(4, 2, 1, generator=generator, dtype=torch.float64).flatten(1)
    std = (0.1 + torch.rand(4, 2, 1, generator=generator, dtype=torch.float64)).flatten(1)
    alpha, sigma = 0.6, 0.5
    reference = distributions.MixtureSameFamily(
        distributions.Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)),
        distributions.Independent(
            distributions.Normal(alpha * means, (alpha**2 * std**2 + sigma**2).sqrt()), 1
        ),
    )
    x = torch.randn(30, 2, 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        oracle.log_density(x, alpha, sigma), reference.log_prob(x.flatten(1)), rtol=1e-6, atol=1e-7
    )


def test_one_component_is_a_gaussian() -> None:
    mean, std = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 2.0]])
    one, gaussian = MixtureOracle(mean, std), GaussianOracle(mean[0], torch.diag(std[0] ** 2))
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for level in (-5.0, 0.0, 5.0):
        alpha, sigma = SCHEDULE.alpha(level), SCHEDULE.sigma(level)
        for function in ("posterior_mean", "posterior_variance"):
            got, expected = (getattr(oracle, function)(x, alpha, sigma) for oracle in (one, gaussian))
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
        value, error = one.mmse_estimate(level, samples=10)
        torch.testing.assert_close(value, gaussian.mmse(level), rtol=1e-12, atol=0)
        assert float(error) < 1e-14


# --- identities of a posterior mean --------------------------------------------------------------------


@pytest.mark.parametrize("level", [-3.0, 0.5, 3.0])
def test_the_error_is_orthogonal_to_every_function_of_the_input(level: float) -> None:
    oracle = plane()
    x0, x = noisy(oracle, level, 20_000)
    error = (x0 - answer(oracle, x, level)).flatten(1)
    flat = x.flatten(1)
    for function in (torch.ones_like(flat), flat, flat**3, torch.sin(3 * flat), flat.flip(1).sign()):
        product = (error * function).sum(1)
        standard_error = float(product.std()) / math.sqrt(len(product))
        assert abs(float(product.mean())) < 4.5 * standard_error


@pytest.mark.parametrize("level", [-3.0, 0.5, 3.0])
def test_no_other_answer_has_a_smaller_error(level: float) -> None:
    oracle = plane()
    x0, x = noisy(oracle, level, 20_000)
    best = answer(oracle, x, level)
    wiener = GaussianOracle.fit(x0).posterior_mean(x, SCHEDULE.alpha(level), SCHEDULE.sigma(level))
    own = float(((x0 - best) ** 2).mean())
    for other in (wiener, best * 0.95, best + 0.05, best + 0.05 * x):
        assert own < float(((x0 - other) ** 2).mean())
    per_draw = ((x0 - best) ** 2).flatten(1).mean(1)
    error = float(per_draw.std()) / math.sqrt(len(per_draw))
    assert float(oracle.mmse(level)) == pytest.approx(own, abs=5 * error)


def test_tweedie() -> None:
    """α E[x0|x] = x + σ² ∇ ln p(x) (Robbins 1956): ties the mean to the density by finite differences."""
    oracle, step, alpha, sigma = plane(), 1e-5, 0.7, 0.4
    x = torch.randn(10, 2, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    score = torch.zeros_like(x)
    for axis in range(2):
        shift = torch.zeros_like(x)
        shift[:, axis] = step
        ahead, behind = (oracle.log_density(x + s * shift, alpha, sigma) for s in (1, -1))
        score[:, axis, 0] = (ahead - behind) / (2 * step)
    torch.testing.assert_close(
        alpha * oracle.posterior_mean(x, alpha, sigma), x + sigma**2 * score, rtol=1e-6, atol=1e-7
    )


def test_the_posterior_depends_on_snr_and_scale_alone() -> None:
    """Multiplying x, α and σ by one number changes nothing: the same oracle serves every path."""
    oracle, x = plane(), torch.randn(8, 2, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    base = oracle.posterior_mean(x, 0.6, 0.8)
    for scale in (1e-3, 7.0, 1e4):
        torch.testing.assert_close(
            oracle.posterior_mean(scale * x, scale * 0.6, scale * 0.8), base, rtol=1e-10, atol=1e-10
        )


def test_linear_mmse_bounds_the_mmse_from_above() -> None:
    oracle = line()
    weights = torch.tensor(WEIGHTS).double() / sum(WEIGHTS)
    means, std = torch.tensor(MEANS).double(), torch.tensor(STD).double()
    mean = (weights * means).sum()
    spread = (weights * (std**2 + (means - mean) ** 2)).sum()[None]
    for level in (-3.0, 0.0, 3.0, 6.0):
        assert mmse_by_quadrature(level) < float(linear_mmse(spread, level))
    assert float(oracle.mmse(-math.inf)) == pytest.approx(float(spread), rel=1e-6)


def test_mmse_falls_with_snr_and_keeps_its_shape() -> None:
    levels = torch.linspace(-8, 8, 12).reshape(3, 4)
    value, error = plane().mmse_estimate(levels, samples=500)
    assert value.shape == error.shape == (3, 4) and value.dtype == torch.float64
    # The same draws at every level, so the estimates fall too.
    assert bool((value.flatten().diff() < 0).all())
    assert plane().mmse(torch.zeros(0)).shape == (0,)


def test_mmse_is_its_seeds_alone() -> None:
    first, again, other = (plane().mmse(0.0, samples=50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# --- limits and numerical traps ------------------------------------------------------------------------


@pytest.mark.parametrize("level", [math.inf, 80.0])
def test_without_noise_the_answer_is_the_input(level: float) -> None:
    oracle, x = plane(), torch.randn(5, 2, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(answer(oracle, x, level), x, rtol=1e-12, atol=1e-12)
    # Rounding of the means themselves, squared, is all that is left.
    assert float(oracle.mmse(level, samples=50)) == pytest.approx(math.exp(-level), abs=1e-30)


@pytest.mark.parametrize("level", [-math.inf, -80.0])
def test_without_signal_the_answer_is_the_mean_of_the_data(level: float) -> None:
    x = torch.randn(5, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = torch.full_like(x, sum(m * w for m, w in zip(MEANS, WEIGHTS, strict=True)))
    torch.testing.assert_close(answer(line(), x, level), expected, rtol=1e-6, atol=1e-7)


def test_far_from_all_modes_the_posterior_is_still_a_number() -> None:
    """Every component's density underflows; only log-sum-exp keeps their ratio."""
    oracle = MixtureOracle(torch.tensor([[0.0], [1.0]]), 0.01)
    got = oracle.posterior_mean(torch.tensor([[-1e4], [1e4]], dtype=torch.float64), 1.0, 0.01)
    # Each is answered by the mode on its side: halfway between that mode and the input.
    torch.testing.assert_close(got, torch.tensor([[-5000.0], [5000.5]], dtype=torch.float64))
    assert bool(oracle.log_density(torch.tensor([[1e6]]), 1.0, 0.01).isfinite().all())


def test_a_component_without_weight_does_not_matter() -> None:
    with_it = MixtureOracle(torch.tensor([[0.0], [1.0]]), 0.3, torch.tensor([1.0, 0.0]))
    x = torch.tensor([[0.9], [1.1]], dtype=torch.float64)
    alone = MixtureOracle(torch.tensor([[0.0]]), 0.3)
    torch.testing.assert_close(with_it.posterior_mean(x, 0.8, 0.1), alone.posterior_mean(x, 0.8, 0.1))
    assert float(with_it.sample(500, torch.Generator().manual_seed(0)).max()) < 0.3 * 5


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle, (_, x) = plane(), noisy(plane(), 0.0, 37)
    alpha = torch.linspace(0.1, 0.9, 37, dtype=torch.float64)
    functions = (oracle.posterior_mean, oracle.posterior_variance, oracle.log_density)
    whole = [function(x, alpha, 0.5) for function in functions]
    monkeypatch.setattr(mixture, "_BLOCK", 5 * 8)
    for function, expected in zip(functions, whole, strict=True):
        torch.testing.assert_close(function(x, alpha, 0.5), expected, rtol=1e-13, atol=1e-13)
        assert function(x[:0], 0.5, 0.5).shape[0] == 0


def test_samples_follow_the_weights() -> None:
    draws = line().sample(20_000, torch.Generator().manual_seed(0))[:, 0]
    # Left of −0.9 lies the first mode (6 std) and 1.4% of the second's 0.2.
    assert float((draws < -0.9).double().mean()) == pytest.approx(0.5 + 0.2 * 0.0139, abs=5 * 0.5 / 141)
    assert float(draws.mean()) == pytest.approx(-0.11, abs=5 * 1.6 / 141)


def test_weights_whose_sum_rounds_below_one_still_give_a_component(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = MixtureOracle(torch.arange(10.0)[:, None], 1e-6)
    assert float(torch.full((10,), 0.1, dtype=torch.float64).cumsum(0)[-1]) < 1
    largest = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda count, **options: largest.expand(count).contiguous())
    assert float(oracle.sample(1, torch.Generator())) == pytest.approx(9, abs=1e-4)


def test_std_and_weights_broadcast_and_are_kept_double() -> None:
    means = torch.zeros(3, 2)
    x = torch.ones(1, 2, dtype=torch.float64)
    one = MixtureOracle(means, 0.1)
    assert float(one.posterior_variance(x, 0.0, 1.0)) == pytest.approx(0.01, rel=1e-14)
    for std in (torch.full((3,), 0.1, dtype=torch.float64), torch.full((3, 2), 0.1, dtype=torch.float64)):
        other = MixtureOracle(means, std, torch.tensor([2.0, 2.0, 2.0]))
        got, expected = (oracle.posterior_mean(x, 0.5, 0.5) for oracle in (other, one))
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)


def test_it_is_an_oracle_and_keeps_dtype() -> None:
    oracle = plane()
    assert isinstance(oracle, Oracle)
    assert (oracle.name, oracle.label) == ("mixture", "exact posterior of the mixture")
    assert oracle.posterior_mean(torch.zeros(2, 2, 1), 0.5, 0.5).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MixtureOracle(torch.zeros(3), 0.1), r"mixture means: expected \[K, ...\]"),
        (lambda: MixtureOracle(torch.zeros(0, 2), 0.1), "K of at least 1"),
        (lambda: MixtureOracle(torch.zeros(3, 2), 0.0), "positive numbers"),
        (lambda: MixtureOracle(torch.zeros(3, 2), torch.ones(2)), r"\[3\] or \[3, 2\]; got shape \[2\]"),
        (lambda: MixtureOracle(torch.zeros(3, 2), math.nan), "positive numbers"),
        (lambda: MixtureOracle(torch.zeros(3, 2), 1.0, torch.ones(2)), "3 non-negative numbers"),
        (lambda: MixtureOracle(torch.zeros(2, 2), 1.0, torch.tensor([2.0, -1.0])), "non-negative"),
        (lambda: MixtureOracle(torch.zeros(2, 2), 1.0, torch.zeros(2)), "non-negative"),
        (lambda: plane().posterior_mean(torch.zeros(4, 2), 1.0, 1.0), "mixture oracle"),
        (lambda: plane().mmse(0.0, samples=1), "samples: expected an integer of at least 2"),
    ],
)
def test_bad_input_is_refused_in_words(call: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()  # type: ignore[operator]
