"""Extrapolated effective rank: what a rarefaction curve is heading for, with the uncertainty of the fit and of the samples.

All rank statistics grow with N; r(n) = r∞ n / (n + h) is the simplest saturating curve, fitted to ranks of subsets. It is a
model, not an estimate without bias: report it beside the curve, never in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.spectra import Interval, Replicates, interval_from_replicates
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array
from ntkdiag.spectra.dense.named_statistics import statistic
from ntkdiag.spectra.uncertainty.left_out import on_subsets, sample_groups
from ntkdiag.spectra.uncertainty.rarefaction import subsets_of_size

# Below this many samples a curve has too few points to bend.
MIN_SAMPLES = 16


@dataclass(frozen=True)
class Extrapolation:
    """A fitted saturating curve.

    Attributes:
        limit: r∞ with an interval over samples (jackknife of the whole fit, log scale); its ends are NaN where the
            curve does not bend enough for a limit to exist.
        half: h, the number of samples at which half of r∞ is reached.
        misfit: Largest relative distance between curve and fit. Above a few percent the model does not hold; below,
            it may still not: for a spike on a flat spectrum it is 1% where the limit is a quarter too high.
    """

    limit: Interval
    half: float
    misfit: float


def extrapolate(matrix: GramLike, *, level: float = 0.9, groups: int = 60, seed: int = 0) -> Extrapolation:
    """Fit r(n) = r∞ n / (n + h) to effective ranks of subsets of N/4 … N samples.

    Args:
        matrix: K, [N, N], N ≥ 16.
        level: Nominal coverage of the limit's interval, which covers the fitted limit at this N, not the population's rank.
        groups: Groups of samples that the jackknife leaves out; each time the curve is fitted anew.
        seed: Of all subsets.

    Raises:
        InputError: too few samples.
    """
    gram = gram_array(matrix)
    samples = len(gram)
    if samples < MIN_SAMPLES:
        raise InputError("samples", expected=f"at least {MIN_SAMPLES} to extrapolate in N", got=samples)
    sizes, ranks = _curve(gram, seed)
    slope, intercept = _line(sizes, ranks)
    limit = _limit(slope, ranks[-1])
    fitted = sizes / (slope * sizes + intercept)
    whole = np.arange(samples)
    others = [np.delete(whole, group) for group in sample_groups(samples, min(samples, groups))]
    limits = np.array([_jackknifed(gram[np.ix_(kept, kept)], seed) for kept in others])
    interval = interval_from_replicates(
        Replicates(limit, limits), samples=samples, level=level, scale="log", minimum=1.0
    )
    half = intercept * limit if np.isfinite(limit) else float("inf")
    return Extrapolation(interval, half, float(np.abs(fitted / ranks - 1).max()))


def _jackknifed(gram: Array, seed: int) -> float:
    sizes, ranks = _curve(gram, seed)
    return _limit(_line(sizes, ranks)[0], ranks[-1])


def _curve(gram: Array, seed: int) -> tuple[Array, Array]:
    """Sizes and mean effective ranks of subsets."""
    samples = len(gram)
    sizes = np.unique(np.linspace(samples / 4, samples, 5).round().astype(int))
    rank = [statistic("effective_rank")]
    ranks = [
        on_subsets(rank, gram, None, subsets_of_size(samples, int(n), 12, seed))["effective_rank"].mean()
        for n in sizes
    ]
    return sizes.astype(float), np.array(ranks)


def _line(sizes: Array, ranks: Array) -> tuple[float, float]:
    """Slope 1/r∞ and intercept h/r∞ of n/r, a straight line in n, by least squares of relative errors."""
    slope, intercept = np.polyfit(sizes, sizes / ranks, 1, w=ranks / sizes)
    return float(slope), float(intercept)


def _limit(slope: float, last_rank: float) -> float:
    """r∞; infinite where the line does not rise, that is, where the curve does not bend."""
    return 1 / slope if slope > 1e-9 / last_rank else float("inf")
