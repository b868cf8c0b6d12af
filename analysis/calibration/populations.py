"""Networks whose effects are known: buckets of Gaussian features whose statistics differ between thirds by a planted factor.

At the noisy end every statistic is smaller than in the middle by the factor, at the clean end larger by it. The strength
(trace, eigenvalues) is planted by a scale; rank and shared share need another spectrum, or another shared mean, which is
solved for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ntkdiag.spectra.dense.named_statistics import evaluate_all

Array = NDArray[np.float64]
ENDS = ("noisy", "clean")
MODES = np.arange(1, 51)
# Correlation of a sample's features between buckets: all have the same data and noise.
PAIRED = 0.8


@dataclass(frozen=True)
class Population:
    """Gaussian features.

    Attributes:
        law: Their variances, of sum 1.
        uneven: Whether each sample's features are multiplied by exp(z/2), z standard normal.
        shared: Square of a mean along the first direction, which all samples share.
    """

    law: tuple[float, ...]
    uneven: bool = False
    shared: float = 0.0

    def flattened(self, power: float) -> Population:
        """The law raised to a power below 1 (a larger rank) or above 1 (a smaller one)."""
        raised = np.power(self.law, power)
        return Population(tuple(raised / raised.sum()), self.uneven, self.shared)

    def moved(self, shared: float) -> Population:
        """The same around another shared mean."""
        return Population(self.law, self.uneven, shared)

    def features(self, base: Array, norms: Array) -> Array:
        """Features of standard normal numbers [N, modes]."""
        phi = base * np.sqrt(self.law) * (norms if self.uneven else 1.0)
        phi[:, 0] += np.sqrt(self.shared)
        return phi


def _normalised(law: Array) -> tuple[float, ...]:
    return tuple(law / law.sum())


POPULATIONS = {
    "1/k": Population(_normalised(1 / MODES)),
    "1/k², uneven norms": Population(_normalised(1.0 / MODES**2), uneven=True),
    "spiked": Population(_normalised(np.append(20.0, np.ones(49)))),
    "1/k, shared answer": Population(_normalised(1 / MODES), shared=2.0),
}


STRENGTH = ("trace", "top_eigenvalue", "centred_trace", "centred_top_eigenvalue")


@dataclass(frozen=True)
class Planted:
    """What some statistics are tested on.

    Attributes:
        statistics: Their names: in the middle their value is the factor times that at the noisy end, and one over the factor
            times that at the clean end.
        ends: The populations of the noisy end, the middle and the clean end.
        scales: Factors of their kernels.
    """

    statistics: tuple[str, ...]
    ends: tuple[Population, Population, Population]
    scales: tuple[float, float, float]

    @property
    def risen(self) -> bool:
        """Whether there is a population for the clean end."""
        return self.ends[2] is not self.ends[1] or self.scales[2] != self.scales[1]


def planted(name: str, factor: float, samples: int, draws: int) -> Iterator[Planted]:
    """Every statistic of a population planted at a factor, those of strength together.

    Args:
        name: A population.
        factor: Above 1.
        samples: N, for statistics whose interval covers an expectation at N.
        draws: Fresh draws of which that expectation is the mean.
    """
    middle = POPULATIONS[name]
    yield Planted(STRENGTH, (middle,) * 3, (1 / factor, 1.0, factor))
    ranks: list[tuple[str, ...]] = [("effective_rank",), ("centred_effective_rank",)]
    if middle.shared:
        ranks += [("shared_share",), ("participation_ratio_pairs",), ("centred_participation_ratio_pairs",)]
    else:  # the population is its own centred one
        ranks += [("participation_ratio_pairs", "centred_participation_ratio_pairs")]
    for names in ranks:
        value = _expected(names[0], middle, samples, draws)
        ends = [
            _solved(names[0], middle, wanted, samples, draws) for wanted in (value / factor, value * factor)
        ]
        yield Planted(names, (ends[0], middle, ends[1]), (1.0, 1.0, 1.0))


def _solved(statistic: str, middle: Population, wanted: float, samples: int, draws: int) -> Population:
    """The population, with another shared mean or a flatter or steeper law, that has a value of a statistic.

    The population itself where no law has it (a rank that is half as large again as one near N).
    """
    if statistic == "shared_share":
        change, lowest, highest = middle.moved, 0.1, 20.0
    else:
        change, lowest, highest = middle.flattened, 0.05, 4.0

    def gap(setting: float) -> float:
        return float(np.log(_expected(statistic, change(setting), samples, draws) / wanted))

    if gap(lowest) * gap(highest) > 0:
        return middle
    return change(float(brentq(gap, lowest, highest, xtol=1e-3)))


@cache
def _expected(statistic: str, population: Population, samples: int, draws: int) -> float:
    """Value of the population in closed form, or the mean over fresh draws (the same ones for all populations)."""
    law = np.array(population.law)
    if statistic == "centred_participation_ratio_pairs" or (
        statistic == "participation_ratio_pairs" and population.shared == 0
    ):
        return float(law.sum() ** 2 / np.square(law).sum())
    if statistic == "participation_ratio_pairs":
        own = law * (np.exp(0.5) if population.uneven else 1.0)
        own[0] += population.shared
        return float(own.sum() ** 2 / np.square(own).sum())
    rng = np.random.default_rng(5)
    values = []
    for _ in range(-(-draws // 100)):
        base, norms = _draw(100, samples, rng)
        grams = np.stack(
            [(phi := population.features(b, n)) @ phi.T for b, n in zip(base, norms, strict=True)]
        )
        values.append(evaluate_all([statistic], grams)[statistic])
    return float(np.mean(values))


def _draw(count: int, samples: int, rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((count, samples, len(MODES))), np.exp(
        rng.standard_normal((count, samples, 1)) / 2
    )


def kernels(
    one: Planted, samples: int, probes: int, outputs: int, a_third: int, rng: np.random.Generator
) -> Array:
    """Kernels of single probes of all buckets, on the same samples and probes, [B, R, N, N], the noisy end first.

    A mode carried by m groups of outputs is read by each probe times the mean of m squared normals.
    """
    base, norms = _draw(1 + 3 * a_third, samples, rng)
    weights = rng.chisquare(outputs, (probes, len(MODES))) / outputs
    found = []
    for own, bucket in zip(base[1:], np.repeat(np.arange(3), a_third), strict=True):
        population, scale = one.ends[bucket], one.scales[bucket]
        mixed = PAIRED * base[0] + np.sqrt(1 - PAIRED**2) * own
        phi = population.features(mixed, norms[0])
        found.append(scale * np.einsum("nk,rk,mk->rnm", phi, weights, phi, optimize=True))
    return np.stack(found)
