"""Do nominal 90% intervals cover 90%? Gram matrices from populations with known answers; see README.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntkdiag.provenance import write_text
from ntkdiag.spectra import (
    STATISTICS,
    Interval,
    contrast_interval,
    evaluate,
    mean_interval,
    subsample_intervals,
)

HERE = Path(__file__).parent
Array = NDArray[np.float64]
Maker = Callable[[np.random.Generator, int], Array]
KERNEL = ["trace", "participation_ratio_pairs", "top_eigenvalue", "effective_rank", "decay_exponent"]
GRADIENT = ["gradient_signal", "gsnr"]


def gaussian(spectrum: Array) -> Maker:
    """Features N(0, diag(spectrum)): the kernel's population eigenvalues are `spectrum`."""
    return lambda rng, count: rng.standard_normal((count, len(spectrum))) * np.sqrt(spectrum)


def relu(rng: np.random.Generator, count: int) -> Array:
    """A fixed layer of 64 rectified units on 4-dimensional Gaussian input: not centred, not Gaussian."""
    weights = np.random.default_rng(11).standard_normal((4, 64))
    return np.maximum(rng.standard_normal((count, 4)) @ weights, 0) / 8


# name → (features, eigenvalues of the population's second moment; None: by Monte Carlo)
POPULATIONS: dict[str, tuple[Maker, Array | None]] = {
    name: (gaussian(spectrum), spectrum)
    for name, spectrum in {
        "low rank": np.array([1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        "power law": np.arange(1, 51) ** -1.0,
        "flat + spike": np.append(20.0, np.ones(100)),
        "exactly flat": np.ones(16),
    }.items()
} | {"ReLU features": (relu, None)}

# name → values per sample and their mean
LOSSES: dict[str, tuple[Maker, float]] = {
    "chi-squared(20)": (lambda rng, count: rng.chisquare(20, count), 20.0),
    "exponential": (lambda rng, count: rng.exponential(1.0, count), 1.0),
    "lognormal(0, 1)": (lambda rng, count: rng.lognormal(0.0, 1.0, count), float(np.exp(0.5))),
}


def kernel_answers(name: str, samples: int, draws: int) -> dict[str, float]:
    """Population values in closed form; expectations at N from fresh draws that no interval sees."""
    features, spectrum = POPULATIONS[name]
    rng = np.random.default_rng([99, samples])
    if spectrum is None:
        many = features(rng, 2_000_000)
        spectrum = np.linalg.eigvalsh(many.T @ many / len(many))
    answers = {
        "trace": float(spectrum.sum()),
        "participation_ratio_pairs": float(spectrum.sum() ** 2 / np.square(spectrum).sum()),
    }
    grams = np.stack([gram(features(rng, samples)) for _ in range(draws)])
    expected = [one for one in KERNEL if STATISTICS[one].answer == "expectation at N"]
    return answers | {one: float(evaluate(one, grams).mean()) for one in expected}


def gram(features: Array) -> Array:
    return features @ features.T


def kernel_trial(name: str, samples: int, options: dict[str, Any]) -> Callable[..., dict[str, Interval]]:
    features = POPULATIONS[name][0]
    return lambda rng, seed: subsample_intervals(KERNEL, gram(features(rng, samples)), seed=seed, **options)


def gradient_case(size: float, samples: int, options: dict[str, Any]) -> tuple[dict[str, float], Callable]:
    """Per-sample gradients with mean (size, 0, …) and covariance diag(1/k), k = 1 … 50."""
    noise = gaussian(np.arange(1, 51) ** -1.0)

    def trial(rng: np.random.Generator, seed: int) -> dict[str, Interval]:
        gradients = noise(rng, samples)
        gradients[:, 0] += size
        return subsample_intervals(GRADIENT, gram(gradients), seed=seed, **options)

    return {"gradient_signal": size**2, "gsnr": size**2 / float((1 / np.arange(1, 51)).sum())}, trial


def probe_case(
    correlation: float, known_noise: str, samples: int, probes: int, options: dict[str, Any]
) -> tuple[dict[str, float], Callable]:
    """Jacobians [D=8, P=30] with correlated outputs, read by ±1 probes that all samples share."""
    mixing = np.linalg.cholesky((1 - correlation) * np.eye(8) + correlation)
    spectrum = np.arange(1, 31) ** -1.0
    outputs = mixing @ mixing.T
    answers = {
        "trace": float(np.trace(outputs) / 8 * spectrum.sum()),
        "participation_ratio_pairs": float(
            (np.trace(outputs) * spectrum.sum()) ** 2 / (np.square(outputs).sum() * np.square(spectrum).sum())
        ),
    }

    def trial(rng: np.random.Generator, seed: int) -> dict[str, Interval]:
        jacobians = mixing @ (rng.standard_normal((samples, 8, 30)) * np.sqrt(spectrum))
        signs = rng.choice([-1.0, 1.0], (probes, 8))
        gradients = np.einsum("ra,nap->rnp", signs, jacobians)
        grams = gradients @ gradients.transpose(0, 2, 1) / 8
        known = {
            "nothing": {},
            "stderr": {"stderr": grams.std(0, ddof=1) / np.sqrt(probes)},
            "per_probe": {"per_probe": grams},
        }[known_noise]
        return subsample_intervals(list(answers), grams.mean(0), seed=seed, **known, **options)

    return answers, trial


def pair_case(shared: float, samples: int, options: dict[str, Any]) -> tuple[dict[str, float], Callable]:
    """Two buckets whose features correlate by `shared` sample by sample; the second has twice the trace."""
    features = POPULATIONS["power law"][0]

    def trial(rng: np.random.Generator, seed: int) -> dict[str, Interval]:
        first, other = features(rng, samples), features(rng, samples)
        second = np.sqrt(2) * (shared * first + np.sqrt(1 - shared**2) * other)
        interval = contrast_interval(
            "trace",
            np.stack([gram(first), gram(second)]),
            lambda s: np.log(s[..., 1] / s[..., 0]),
            seed=seed,
            **options,
        )
        return {"ln trace ratio": interval}

    return {"ln trace ratio": float(np.log(2))}, trial


def coverage(trial: Callable, answers: dict[str, float], config: dict[str, Any]) -> list[dict[str, Any]]:
    """Share of intervals that hold the answer, over repeats split between seeds."""
    each = config["repeats"] // len(config["seeds"])
    hits: dict[str, list[list[float]]] = {name: [] for name in answers}
    for seed in config["seeds"]:
        rng = np.random.default_rng([7, seed])
        for repeat in range(each):
            for name, got in trial(rng, 1000 * seed + repeat).items():
                answer = answers[name]
                hits[name].append([got.low > answer, got.high < answer, got.value, got.high - got.low])
    rows = []
    for name, answer in answers.items():
        table = np.array(hits[name])
        inside = 1 - table[:, 0] - table[:, 1]
        by_seed = inside.reshape(len(config["seeds"]), -1).mean(1)
        rows.append(
            {
                "statistic": name,
                "answer": answer,
                "mean_value": table[:, 2].mean(),
                "coverage": inside.mean(),
                "lowest_seed": by_seed.min(),
                "highest_seed": by_seed.max(),
                "missed_above": table[:, 0].mean(),
                "missed_below": table[:, 1].mean(),
                "mean_width": table[:, 3].mean(),
            }
        )
    return rows


def study(config: dict[str, Any]) -> pd.DataFrame:
    """Every case of the study, one row per statistic."""
    rows: list[dict[str, Any]] = []
    base = {"level": config["level"], "draws": config["draws"]}
    usual = base | {"fraction": config["fraction"]}

    def add(
        case: str, population: str, samples: int, fraction: float, answers: dict[str, float], trial: Callable
    ) -> None:
        labels = {"case": case, "population": population, "samples": samples, "fraction": fraction}
        rows.extend(labels | row for row in coverage(trial, answers, config))
        print(pd.DataFrame(rows[-len(answers) :]).round(3).to_string(index=False, header=False), flush=True)

    default, at = config["fraction"], config["fractions_at"]
    for name in POPULATIONS:
        for samples in config["samples"]:
            answers = kernel_answers(name, samples, config["expectation_draws"])
            fractions = [default, *(config["fractions"] if samples == at else [])]
            for fraction in fractions:
                trial = kernel_trial(name, samples, base | {"fraction": fraction})
                add("kernel", name, samples, fraction, answers, trial)
    for size in (0.0, 0.3, 1.0, 3.0):
        add("gradient", f"‖mean‖ = {size:g}", at, default, *gradient_case(size, at, usual))
    for correlation in (0.1, 0.5):
        for noise in ("nothing", "stderr", "per_probe"):
            population = f"outputs correlate {correlation}, {noise} known"
            add(
                "probes",
                population,
                at,
                default,
                *probe_case(correlation, noise, at, config["probes"], usual),
            )
    for shared in (0.0, 0.9):
        add("paired buckets", f"features correlate {shared}", at, default, *pair_case(shared, at, usual))
    for name, (values, mean) in LOSSES.items():
        trial = loss_trial(values, at, config["level"])
        add("per-sample mean", name, at, np.nan, {"loss": mean}, trial)
    return pd.DataFrame(rows)


def loss_trial(values: Maker, samples: int, level: float) -> Callable[..., dict[str, Interval]]:
    return lambda rng, seed: {"loss": mean_interval(values(rng, samples), level=level)}


if __name__ == "__main__":
    settings = json.loads((HERE / "config.json").read_text())
    result = study(settings)
    write_text(HERE / "results" / "coverage.csv", result.to_csv(index=False, float_format="%.4g"))
