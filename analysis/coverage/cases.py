"""What the study tries: each case is a trial, a function of a random generator to intervals, with the true values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.coverage.populations import (
    KERNEL,
    SPECTRA,
    SQUARES,
    Array,
    features,
    gram,
    norms,
    probe_weights,
    probed,
    truths,
)
from ntkdiag.recoverability import gradient_cosines
from ntkdiag.spectra import (
    Interval,
    contrast_of_replicates,
    mean_interval,
    subsample_interval,
    subsample_intervals,
)
from ntkdiag.spectra.uncertainty.left_out import leave_out

Trial = Callable[[np.random.Generator], dict[str, Interval]]
# Groups of buckets whose ln S is compared: three spectra against three others.
GROUPS = {
    "1/k against 1/k²": [np.arange(1, 51) ** -power for power in (1.0, 1.1, 1.2, 1.6, 1.8, 2.0)],
    "small against large spike": [np.append(size, np.ones(49)) for size in (2.0, 3, 4, 12, 16, 20)],
    "the same 1/k": [np.arange(1, 51) ** -1.0] * 6,
}
SIGNS = np.array([1, 1, 1, -1, -1, -1]) / 3
CONTRASTED = ["trace", "top_eigenvalue", "effective_rank", "participation_ratio", "participation_ratio_pairs"]


@dataclass(frozen=True)
class Case:
    """One row of settings, and how to try it.

    Attributes:
        labels: Columns of the table that say which case it is.
        answers: Statistic → true value.
        trial: From a generator to intervals of those statistics.
        repeats: How often it is tried.
    """

    labels: dict[str, Any]
    answers: dict[str, float]
    trial: Trial
    repeats: int


def every_case(config: dict[str, Any]) -> Iterator[Case]:
    """All cases of the study."""
    for samples in map(int, config["repeats"]):
        yield from _kernels(samples, config)
        yield from _gradients(samples, config)
        yield from _losses(samples, config)
    for samples in map(int, config["contrast_repeats"]):
        yield from _contrasts(samples, config)


def _kernels(samples: int, config: dict[str, Any]) -> Iterator[Case]:
    """Statistics of one kernel: spectra × norms × probe noise."""
    for spectrum in config["spectra"]:
        for kind in SQUARES:
            answers = truths(spectrum, kind, samples, config["expectation_draws"])
            for outputs in config["outputs"]:
                yield Case(
                    _labels("kernel", spectrum, kind, outputs, samples),
                    answers,
                    _kernel_trial(spectrum, kind, outputs, samples, config),
                    config["repeats"][str(samples)],
                )


def _kernel_trial(
    spectrum: str, kind: str, outputs: int | None, samples: int, config: dict[str, Any]
) -> Trial:
    def trial(rng: np.random.Generator) -> dict[str, Interval]:
        phi = features(spectrum, kind, samples, rng)
        if outputs is None:
            return subsample_intervals(KERNEL, gram(phi), level=config["level"])
        grams = probed(phi, probe_weights(outputs, config["probes"], phi.shape[1], rng))
        return subsample_intervals(KERNEL, grams.mean(0), level=config["level"], per_probe=grams)

    return trial


def _gradients(samples: int, config: dict[str, Any]) -> Iterator[Case]:
    """GSNR, and the cosine of mean gradients of two buckets that share most of their noise."""
    for spectrum in ("1/k", "1/k²", "spiked", "flat, 16"):
        for kind in SQUARES:
            for ratio in config["ratios"]:
                truth = SQUARES["light"] if kind == "light" else float(np.exp(0.25))  # (E factor)²
                law = SPECTRA[spectrum]
                signal = truth * ratio * law.sum()
                noise = SQUARES[kind] * (ratio + 1) * law.sum() - signal
                answers = {"gsnr": float(signal / noise)}
                if ratio > 0:
                    answers["gradient_cosine"] = config["cosine"]
                yield Case(
                    _labels("gradient", f"{spectrum}, GSNR {ratio:g}", kind, None, samples),
                    answers,
                    _gradient_trial(law, kind, ratio, samples, config),
                    config["repeats"][str(samples)],
                )


def _gradient_trial(law: Array, kind: str, ratio: float, samples: int, config: dict[str, Any]) -> Trial:
    cosine = config["cosine"]
    means = np.zeros((2, len(law)))
    means[0, 0], means[1, :2] = 1.0, (cosine, np.sqrt(1 - cosine**2))
    means *= np.sqrt(ratio * law.sum())

    def trial(rng: np.random.Generator) -> dict[str, Interval]:
        base, *own = rng.standard_normal((3, samples, len(law)))
        scale = norms(kind, samples, rng)
        first, second = (
            (mean + (0.8 * base + 0.6 * part) * np.sqrt(law)) * scale
            for mean, part in zip(means, own, strict=True)
        )
        found = {"gsnr": subsample_interval("gsnr", gram(first), level=config["level"])}
        if ratio > 0:
            cosines = gradient_cosines(gram(np.concatenate([first, second])), 2, config["level"])
            ends = [float(part[0, 1]) for part in (cosines.value, cosines.low, cosines.high)]
            found["gradient_cosine"] = Interval(*ends, np.nan, config["level"], "Fieller")
        return found

    return trial


def _losses(samples: int, config: dict[str, Any]) -> Iterator[Case]:
    """Means of per-sample losses."""
    makers: dict[str, tuple[Callable[[np.random.Generator], Array], float]] = {
        "chi-squared(20)": (lambda rng: rng.chisquare(20, samples), 20.0),
        "exponential": (lambda rng: rng.exponential(1.0, samples), 1.0),
        "lognormal(0, 1)": (lambda rng: rng.lognormal(0.0, 1.0, samples), float(np.exp(0.5))),
    }
    for name, (make, mean) in makers.items():
        kind = "heavy" if name.startswith("lognormal") else "light"
        yield Case(
            _labels("loss", name, kind, None, samples),
            {"loss": mean},
            lambda rng, make=make: {"loss": mean_interval(make(rng), level=config["level"])},
            config["repeats"][str(samples)],
        )


def _contrasts(samples: int, config: dict[str, Any]) -> Iterator[Case]:
    """Differences of mean ln S between groups of buckets, on samples, norms and probes that the buckets share."""
    for name, laws in GROUPS.items():
        for kind in SQUARES:
            answers = _contrast_answers(laws, kind, samples, config["expectation_draws"])
            for outputs in (4, None):
                yield Case(
                    _labels("contrast", name, kind, outputs, samples),
                    answers,
                    _contrast_trial(laws, kind, outputs, samples, config),
                    config["contrast_repeats"][str(samples)],
                )


def _contrast_answers(laws: list[Array], kind: str, samples: int, draws: int) -> dict[str, float]:
    """Contrasts of ln of the true values; equal spectra have a contrast of zero."""
    logs = []
    for law in laws:
        SPECTRA["one of a group"] = law
        logs.append(
            {name: np.log(value) for name, value in truths("one of a group", kind, samples, draws).items()}
        )
        del SPECTRA["one of a group"]
    return {name: float(SIGNS @ [one[name] for one in logs]) for name in CONTRASTED}


def _contrast_trial(
    laws: list[Array], kind: str, outputs: int | None, samples: int, config: dict[str, Any]
) -> Trial:
    def trial(rng: np.random.Generator) -> dict[str, Interval]:
        base, scale = rng.standard_normal((samples, 50)), norms(kind, samples, rng)
        own = 0.8 * base + 0.6 * rng.standard_normal((len(laws), samples, 50))
        buckets = [part * np.sqrt(law) * scale for part, law in zip(own, laws, strict=True)]
        probes = None
        if outputs is not None:
            weights = probe_weights(outputs, config["probes"], 50, rng)
            probes = np.stack([probed(phi, weights) for phi in buckets])
        grams = np.stack([gram(phi) for phi in buckets]) if probes is None else probes.mean(1)
        singles = [None] * len(grams) if probes is None else list(probes)
        found = [
            leave_out(CONTRASTED, one, per_probe=single) for one, single in zip(grams, singles, strict=True)
        ]
        return {
            name: contrast_of_replicates(
                [bucket[name] for bucket in found],
                lambda s: np.log(s) @ SIGNS,
                samples=samples,
                level=config["level"],
            )
            for name in CONTRASTED
        }

    return trial


def _labels(case: str, population: str, kind: str, outputs: int | None, samples: int) -> dict[str, Any]:
    return {
        "case": case,
        "population": population,
        "norms": kind,
        "outputs": "∞" if outputs is None else str(outputs),
        "samples": samples,
    }
