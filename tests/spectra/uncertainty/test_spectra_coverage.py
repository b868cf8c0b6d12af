"""Do nominal 90% intervals cover 85 to 95%? A reduced form of the study in analysis/coverage, at N = 64.

Trace and pair participation ratio must cover the population's value, known in closed form. Eigenvalue
statistics must cover their expectation at N = 64, from fresh draws through singular values and library
routines.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from spectra_populations import POPULATIONS, features, gram, slow_statistics

from ntkdiag.spectra import (
    Interval,
    contrast_interval,
    mean_interval,
    subsample_interval,
    subsample_intervals,
)

SAMPLES = 64
SEEDS = range(4)
DRAWS = 80


def covered(
    trial: Callable[[np.random.Generator, int], dict[str, Interval]], repeats: int
) -> dict[str, np.ndarray]:
    """name → [seeds, repeats, 3]: low, high and value."""
    found: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        rng = np.random.default_rng([5, seed])
        for repeat in range(repeats):
            for name, got in trial(rng, 10_000 * seed + repeat).items():
                found.setdefault(name, []).append([got.low, got.high, got.value])
    return {name: np.array(rows).reshape(len(SEEDS), repeats, 3) for name, rows in found.items()}


def share(ends: np.ndarray, answer: float) -> np.ndarray:
    """Share of intervals that hold the answer, for each seed."""
    return ((ends[..., 0] <= answer) & (answer <= ends[..., 1])).mean(1)


def assert_calibrated(ends: np.ndarray, answer: float, label: str) -> None:
    by_seed = share(ends, answer)
    assert 0.85 <= by_seed.mean() <= 0.95, f"{label}: {by_seed}"
    assert by_seed.min() >= 0.78 and by_seed.max() <= 0.99, f"{label} hangs on the seed: {by_seed}"


@cache
def expectations(population: str) -> dict[str, float]:
    rng = np.random.default_rng(77)
    draws = [slow_statistics(features(POPULATIONS[population], SAMPLES, rng)) for _ in range(2000)]
    return {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}


@pytest.mark.parametrize("population", POPULATIONS)
def test_population_values(population: str) -> None:
    spectrum = POPULATIONS[population]
    answers = {
        "trace": spectrum.sum(),
        "participation_ratio_pairs": spectrum.sum() ** 2 / np.square(spectrum).sum(),
    }
    found = covered(
        lambda rng, seed: subsample_intervals(answers, gram(spectrum, SAMPLES, rng), draws=DRAWS, seed=seed),
        200,
    )
    for name, answer in answers.items():
        assert_calibrated(found[name], answer, f"{population}, {name}")


@pytest.mark.parametrize("population", POPULATIONS)
def test_expectations_at_n(population: str) -> None:
    answers = expectations(population)
    spectrum = POPULATIONS[population]
    found = covered(
        lambda rng, seed: subsample_intervals(answers, gram(spectrum, SAMPLES, rng), draws=DRAWS, seed=seed),
        100,
    )
    for name, answer in answers.items():
        assert_calibrated(found[name], answer, f"{population}, {name}")


def test_effective_rank_does_not_cover_the_population_and_says_so() -> None:
    """The population's effective rank is out of reach at N = 64: the interval is for the expectation there."""
    spectrum = POPULATIONS["flat and spike"]
    p = spectrum / spectrum.sum()
    truth = np.exp(-(p * np.log(p)).sum())
    assert expectations("flat and spike")["effective_rank"] < 0.6 * truth
    got = subsample_interval("effective_rank", gram(spectrum, SAMPLES, np.random.default_rng(0)))
    assert got.high < truth


@pytest.mark.parametrize("size", [1.0, 3.0])
def test_gradient_signal_and_its_ratio_to_noise(size: float) -> None:
    noise = POPULATIONS["power law"]

    def trial(rng: np.random.Generator, seed: int) -> dict[str, Interval]:
        gradients = features(noise, SAMPLES, rng)
        gradients[:, 0] += size
        return subsample_intervals(
            ["gradient_signal", "gsnr"], gradients @ gradients.T, draws=DRAWS, seed=seed
        )

    found = covered(trial, 100)
    assert_calibrated(found["gradient_signal"], size**2, "gradient_signal")
    assert_calibrated(found["gsnr"], size**2 / noise.sum(), "gsnr")


def test_without_signal_the_interval_holds_zero_more_often_than_it_says() -> None:
    found = covered(
        lambda rng, seed: {
            "gsnr": subsample_interval("gsnr", gram(np.ones(30), SAMPLES, rng), draws=DRAWS, seed=seed)
        },
        100,
    )
    assert share(found["gsnr"], 0.0).mean() >= 0.93


def test_probes_that_samples_share_must_be_counted() -> None:
    """Outputs that agree make each ±1 probe a noisy reading of every sample at once: resampling samples cannot see it."""
    mixing = np.linalg.cholesky(0.7 * np.eye(8) + 0.3)
    spectrum = np.arange(1, 21) ** -1.0

    def trial(rng: np.random.Generator, seed: int) -> dict[str, Interval]:
        jacobians = mixing @ (rng.standard_normal((SAMPLES, 8, 20)) * np.sqrt(spectrum))
        gradients = np.einsum("ra,nap->rnp", rng.choice([-1.0, 1.0], (8, 8)), jacobians)
        grams = gradients @ gradients.transpose(0, 2, 1) / 8
        return {
            "fixed": subsample_interval("trace", grams.mean(0), draws=DRAWS, seed=seed),
            "varied": subsample_interval("trace", grams.mean(0), draws=DRAWS, seed=seed, per_probe=grams),
        }

    found = covered(trial, 100)
    assert share(found["fixed"], spectrum.sum()).mean() < 0.5
    assert_calibrated(found["varied"], spectrum.sum(), "trace over samples and probes")


def test_pairing_narrows_a_comparison_and_keeps_its_coverage() -> None:
    spectrum = POPULATIONS["power law"]

    def trial(rng: np.random.Generator, seed: int) -> dict[str, Interval]:
        first, other = features(spectrum, SAMPLES, rng), features(spectrum, SAMPLES, rng)
        buckets = [first, np.sqrt(2) * (0.9 * first + np.sqrt(0.19) * other), np.sqrt(2) * other]
        grams = np.stack([phi @ phi.T for phi in buckets])
        options = {"draws": DRAWS, "seed": seed}
        return {
            "close": contrast_interval("trace", grams, lambda s: np.log(s[..., 1] / s[..., 0]), **options),
            "apart": contrast_interval("trace", grams, lambda s: np.log(s[..., 2] / s[..., 0]), **options),
        }

    found = covered(trial, 75)
    for name, ends in found.items():
        assert_calibrated(ends, np.log(2), name)
    width = {name: (ends[..., 1] - ends[..., 0]).mean() for name, ends in found.items()}
    assert width["close"] < 0.75 * width["apart"]


@pytest.mark.parametrize("shape", [0.5, 1.0, 10.0])
def test_mean_of_skewed_losses(shape: float) -> None:
    found = covered(lambda rng, seed: {"loss": mean_interval(rng.gamma(shape, size=SAMPLES))}, 400)
    assert_calibrated(found["loss"], shape, f"gamma({shape})")
