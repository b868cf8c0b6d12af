"""The statistics that have intervals, by name; each one is computed on stacks of sub-Grams.

A `Statistic` says what it reads, on which scale its error is nearest to normal, and which quantity its interval
covers: a property of the population, or an expectation at a given number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.spectra.dense.centred import centred, centred_pair_sums, shared_share
from ntkdiag.spectra.dense.eigen import Array, GramLike, batched_eigenvalues, real_array
from ntkdiag.spectra.dense.pairs import pair_products, pair_ratio, pair_sums
from ntkdiag.spectra.dense.rank_formulas import (
    decay_exponent,
    effective_rank,
    participation_ratio,
    stable_rank,
)

Scale = Literal["linear", "log", "root"]
View = Literal["gram", "eigenvalues", "pair_sums", "centred_gram", "centred_eigenvalues", "centred_pair_sums"]
# By how much the kurtosis that a few samples show is multiplied; ranks of eigenvalues hide most of it. Tuned in
# analysis/coverage.
TAIL_FACTOR, TAIL_FACTOR_OF_RANKS = 2.0, 5.0


@dataclass(frozen=True)
class Statistic:
    """A number computed from a Gram matrix.

    Attributes:
        name: Its name in tables.
        reads: The argument of `function`: sub-Grams [..., n, n], their eigenvalues of K/n [..., n] (largest
            first), or their sums over pairs [..., 2]; of the kernel, or of the centred kernel (`centred`).
        function: Reduces the statistic's own axes and keeps the leading ones.
        scale: Where its error is nearest to normal: "log" for positive numbers, "root" for signal-to-noise ratios.
        answer: What an interval covers: the value of the "population", or the "expectation at N" of the same
            statistic over new draws of N samples, biased in N as it is.
        minimum: Smallest possible value of a non-zero Gram; lower ends of intervals are clipped to it.
        at_most_samples: Whether it cannot exceed N; upper ends of intervals are then clipped to it.
        maximum: Largest possible value otherwise.
        tail_factor: By how much the kurtosis that N samples show is multiplied, see `interval_from_replicates`.

    Example:
        >>> share = nd.spectra.Statistic(
        ...     "first_share", "eigenvalues", lambda e: e[..., 0] / e.sum(axis=-1), "log", "expectation at N"
        ... )
        >>> nd.spectra.evaluate(share, np.diag([6.0, 2.0]))
        np.float64(0.75)
    """

    name: str
    reads: View
    function: Callable[[Array], Array]
    scale: Scale
    answer: Literal["population", "expectation at N"]
    minimum: float = -np.inf
    at_most_samples: bool = False
    tail_factor: float = TAIL_FACTOR
    maximum: float = np.inf

    def largest(self, samples: int) -> float:
        """Largest possible value on that many samples."""
        return float(samples) if self.at_most_samples else self.maximum


def trace(grams: Array) -> Array:
    """tr K / N = Σe, the mean kernel of a sample with itself: [..., n, n] → [...]."""
    means: Array = np.diagonal(grams, axis1=-2, axis2=-1).mean(-1)
    return means


def gradient_signal(grams: Array) -> Array:
    """Mean off-diagonal entry of a residual Gram g_i·g_j: unbiased for ‖E g‖². [..., n, n] → [...], n ≥ 2."""
    size = grams.shape[-1]
    if size < 2:
        raise InputError("gradient signal", expected="at least 2 samples", got=size)
    diagonal = np.diagonal(grams, axis1=-2, axis2=-1).sum(-1)
    signal: Array = (grams.sum((-1, -2)) - diagonal) / (size * (size - 1))
    return signal


def gsnr(grams: Array) -> Array:
    """Gradient signal-to-noise ratio signal / (total − signal) of a residual Gram; total is its `trace`.

    Above −1, and negative by chance where there is no signal; NaN where all gradients agree. [..., n, n] →
    [...].
    """
    signal = gradient_signal(grams)
    noise = trace(grams) - signal
    return np.divide(signal, noise, out=np.full_like(np.asarray(signal), np.nan), where=noise > 0)[()]


_AT_N: Literal["expectation at N"] = "expectation at N"
_ALL = (
    Statistic("trace", "gram", trace, "log", "population", 0.0),
    Statistic("top_eigenvalue", "eigenvalues", lambda e: e[..., 0], "log", _AT_N, 0.0),
    Statistic(
        "effective_rank", "eigenvalues", effective_rank, "linear", _AT_N, 1.0, True, TAIL_FACTOR_OF_RANKS
    ),
    Statistic(
        "participation_ratio",
        "eigenvalues",
        participation_ratio,
        "linear",
        _AT_N,
        1.0,
        True,
        TAIL_FACTOR_OF_RANKS,
    ),
    Statistic("participation_ratio_pairs", "pair_sums", pair_ratio, "linear", "population", 1.0),
    Statistic("stable_rank", "eigenvalues", stable_rank, "linear", _AT_N, 1.0, True, TAIL_FACTOR_OF_RANKS),
    Statistic("decay_exponent", "eigenvalues", decay_exponent, "linear", _AT_N),
    Statistic("shared_share", "gram", shared_share, "linear", _AT_N, 0.0, maximum=1.0),
    Statistic("centred_trace", "centred_gram", trace, "log", "population", 0.0),
    Statistic("centred_top_eigenvalue", "centred_eigenvalues", lambda e: e[..., 0], "log", _AT_N, 0.0),
    Statistic(
        "centred_effective_rank",
        "centred_eigenvalues",
        effective_rank,
        "linear",
        _AT_N,
        1.0,
        True,
        TAIL_FACTOR_OF_RANKS,
    ),
    Statistic(
        "centred_participation_ratio_pairs", "centred_pair_sums", pair_ratio, "linear", "population", 1.0
    ),
    Statistic("gradient_signal", "gram", gradient_signal, "linear", "population"),
    Statistic("gsnr", "gram", gsnr, "root", "population", -1.0, False, TAIL_FACTOR_OF_RANKS),
)
STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in _ALL}


def statistic(name: str | Statistic) -> Statistic:
    """The registered statistic of a name; a `Statistic` is returned as it is.

    Raises:
        InputError: unknown name, or something else than a name.
    """
    if isinstance(name, Statistic):
        return name
    if not isinstance(name, str):
        raise InputError(
            "statistic", expected="the name of one, such as 'effective_rank'", got=type(name).__name__
        )
    return STATISTICS[require_one_of("statistic", name, STATISTICS)]


def evaluate(name: str | Statistic, grams: GramLike) -> Array:
    """One statistic of every Gram in a stack.

    Args:
        name: Registered name or statistic.
        grams: [..., n, n], symmetric.

    Returns:
        [...].

    Raises:
        InputError: unknown name, or Grams that are not finite, not square or empty.

    Example:
        >>> nd.spectra.evaluate("trace", np.stack([np.eye(4), 2 * np.eye(4)]))
        array([1., 2.])
    """
    chosen = statistic(name)
    array = real_array(grams, "Gram matrices")
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.size == 0:
        raise InputError(
            "Gram matrices", expected="shape [..., n, n], n ≥ 1", got=f"shape {list(array.shape)}"
        )
    return evaluate_all([chosen], array)[chosen.name]


def evaluate_all(
    names: Iterable[str | Statistic], grams: Array, sums: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Several statistics of every Gram in a stack; eigenvalues are computed once for all of them.

    Args:
        names: Registered names or statistics.
        grams: [..., n, n] float64, symmetric; not checked.
        sums: "pair_sums" and "centred_pair_sums" of the same Grams, [..., 2], with probe noise removed; computed from
            `grams` where they are missing.

    Returns:
        name → [...].

    Raises:
        InputError: unknown name, or one sample for a statistic of the centred kernel.
    """
    chosen = [statistic(name) for name in names]
    views: dict[str, Array] = {"gram": grams} | dict(sums or {})
    for view in dict.fromkeys(one.reads for one in chosen):
        _add(view, views)
    return {one.name: one.function(views[one.reads]) for one in chosen}


def _add(view: View, views: dict[str, Array]) -> None:
    """Compute a view of the Grams, unless it is there."""
    if view in views:
        return
    if view == "centred_eigenvalues":
        _add("centred_gram", views)
        views[view] = batched_eigenvalues(views["centred_gram"])
    else:
        views[view] = _OF_GRAMS[view](views["gram"])


_OF_GRAMS: dict[View, Callable[[Array], Array]] = {
    "eigenvalues": batched_eigenvalues,
    "pair_sums": lambda grams: pair_sums(pair_products(grams)),
    "centred_gram": centred,
    "centred_pair_sums": centred_pair_sums,
}
