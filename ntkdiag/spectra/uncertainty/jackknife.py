"""From a statistic, and its values without parts of the data, to an interval.

The jackknife gives the variance of the statistic and its skewness. Hall's transformation corrects the limits for the
skewness (Hall 1992, "On the removal of skewness by transformation"); Student's t with fewer degrees of freedom, the
heavier the tails, corrects them for what the variance itself is uncertain by.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ntkdiag.confidence import Interval, freedom, quantile, require_level
from ntkdiag.errors import InputError, require_one_of
from ntkdiag.spectra.dense.eigen import Array, GramLike, real_array
from ntkdiag.spectra.dense.named_statistics import TAIL_FACTOR, Scale
from ntkdiag.spectra.uncertainty.left_out import Replicates, sample_groups

# Excess kurtosis of the error by one probe, of which too few are known to estimate it: that of the mean of four squared
# normals, a quadratic form of a probe in which four outputs are independent.
PROBE_EXCESS = 3.0

# scale → (forward, backward, derivative of backward expressed in the value); all take the number of samples too
_Map = Callable[..., Array]
_SCALES: dict[str, tuple[_Map, _Map, Callable[[float, int], float]]] = {
    "linear": (lambda x, n: np.asarray(x), lambda z, n: np.asarray(z), lambda x, n: 1.0),
    "log": (lambda x, n: np.log(x), lambda z, n: np.exp(z), lambda x, n: x),
    "root": (
        lambda x, n: np.sqrt(np.clip(1 + (n - 1) * np.asarray(x), 0, None)),
        lambda z, n: (np.square(np.clip(z, 0, None)) - 1) / (n - 1),
        lambda x, n: 2 * max(1 + (n - 1) * x, 0.0) ** 0.5 / (n - 1),
    ),
}


def interval_from_replicates(
    replicates: Replicates,
    *,
    samples: int,
    level: float = 0.9,
    scale: Scale = "linear",
    minimum: float = -np.inf,
    maximum: float = np.inf,
    tail_factor: float = TAIL_FACTOR,
) -> Interval:
    """Jackknife interval from a value and its values without parts of the data.

    Without group j of m_j samples the statistic is θ_j, so that the group's share of the error is
    e_j = (1 − m_j/N) (mean θ − θ_j). Variance over samples: G/(G − 1) Σ e_j²; skewness: Σ e_j³ / (Σ e_j²)^{3/2};
    degrees of freedom: 2 (G − 1)/(c κ + 2) with κ the excess kurtosis of the e_j, if positive, and c `tail_factor`.
    Variance over R probes: (R − 1)/R Σ (θ_r − mean)² (Efron & Stein 1981), with 2 (R − 1)/5 degrees of freedom. The
    variances add, and the degrees of freedom follow Satterthwaite (1946).

    Args:
        replicates: The value, and the values without parts of the data.
        samples: N.
        level: In (0, 1).
        scale: "linear", "log" (positive values) or "root", √(1 + (N − 1) x), for signal-to-noise ratios.
        minimum, maximum: The ends are not reported beyond them.
        tail_factor: c. A few samples show too little of heavy tails, hence a factor above 1; tuned in analysis/coverage.

    Raises:
        InputError: level or scale unknown, or not 2 … N groups.

    Example:
        >>> losses = np.array([1.0, 2.0, 4.0, 5.0])
        >>> without = np.array([np.delete(losses, sample).mean() for sample in range(4)])
        >>> found = nd.spectra.interval_from_replicates(nd.spectra.Replicates(3.0, without), samples=4)
        >>> round(found.stderr, 6), round(float(losses.std(ddof=1)) / 2, 6)
        (0.912871, 0.912871)
    """
    require_level(level)
    require_one_of("scale", scale, _SCALES)
    groups = len(replicates.without_samples)
    if not 2 <= groups <= samples:
        raise InputError(
            "values without samples", expected=f"2 to {samples}, one for each group of samples", got=groups
        )
    forward, backward, slope = _SCALES[scale]
    value, probes = replicates.value, replicates.without_probe
    method = f"jackknife of {samples} samples" + (f" in {groups} groups" if groups < samples else "")
    method += f" and {len(probes)} probes, {scale}" if probes is not None else f", {scale}"
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        variance, skewness, degrees = _error_over_samples(
            replicates.without_samples, lambda x: forward(x, samples), samples, tail_factor
        )
        if probes is not None:
            over_samples, over_probes = variance, float(forward(probes, samples).var()) * (len(probes) - 1)
            variance = over_samples + over_probes
            spread = over_samples**2 / degrees + over_probes**2 / freedom(len(probes), PROBE_EXCESS)
            degrees = variance**2 / spread if spread > 0 else degrees
            skewness *= (over_samples / variance) ** 1.5 if variance > 0 else 1.0
        if variance == 0 and np.isfinite(value):
            return Interval(value, value, value, 0.0, level, method)
        centre, error = float(forward(value, samples)), float(np.sqrt(variance))
        method = f"{method}, t({degrees:.0f})"
        if not (np.isfinite(centre) and np.isfinite(error)):
            return Interval(value, np.nan, np.nan, np.nan, level, method)
        reach = quantile(level, degrees)
        ends = [centre - error * _without_skewness(side, skewness) for side in (reach, -reach)]
        low, high = (float(backward(end, samples)) for end in ends)
    low, high = max(low, minimum), min(high, maximum)  # an estimate may lie beyond what the truth can be
    return Interval(value, min(low, value), max(high, value), error * slope(value, samples), level, method)


def mean_interval(values: GramLike, *, level: float = 0.9, scale: Scale = "log") -> Interval:
    """Interval of the mean of independent per-sample numbers (losses): covers the population mean.

    Nominal 90% held 90 to 94% at N = 32, 64 and 128 for chi-squared, exponential and lognormal (σ = 1) values
    (analysis/coverage).

    Args:
        values: [N], N ≥ 2.
        level: In (0, 1).
        scale: "log" for losses, which are positive and skewed; "linear" for numbers of either sign.

    Raises:
        InputError: fewer than 2 numbers, not finite, or a level or scale that is unknown.

    Example:
        >>> found = nd.spectra.mean_interval(np.random.default_rng(1).exponential(size=100))
        >>> found.low < 1 < found.high
        True
    """
    sample = real_array(values, "per-sample values")
    if sample.ndim != 1 or len(sample) < 2:
        raise InputError("per-sample values", expected="shape [N], N ≥ 2", got=f"shape {list(sample.shape)}")
    count = len(sample)
    mean = sample.mean()
    others = mean + (mean - sample) / (count - 1)
    return interval_from_replicates(Replicates(float(mean), others), samples=count, level=level, scale=scale)


def _error_over_samples(
    values: Array, forward: Callable[[Array], Array], samples: int, tail_factor: float
) -> tuple[float, float, float]:
    """Variance, skewness and degrees of freedom of a statistic from its values without each group of samples."""
    count = len(values)
    if np.all(values == values[0]) and np.isfinite(values[0]):
        return 0.0, 0.0, count - 1.0  # exact, even where the scale is undefined (ln 0 of a zero matrix)
    kept = samples - np.array([len(group) for group in sample_groups(samples, count)])
    scaled = forward(values)
    shares = kept / samples * (np.average(scaled, weights=kept) - scaled)
    size = float(np.sqrt(np.square(shares).sum()))
    if not (np.isfinite(size) and size > 0):
        return size**2, 0.0, count - 1.0
    shares = shares / size
    excess = count * float((shares**4).sum()) - 3
    return (
        size**2 * count / (count - 1),
        float((shares**3).sum()),
        freedom(count, tail_factor * max(excess, 0.0)),
    )


def _without_skewness(reach: float, skewness: float) -> float:
    """The quantile of the studentised error whose Hall transform is `reach`; `skewness` is that of the estimate.

    Hall's cubic T + γT²/3 + γ²T³/27 + γ/6 is monotone, so that its inverse is in closed form.
    """
    if abs(skewness) < 1e-6:
        return reach
    return float(3 / skewness * (np.cbrt(1 + skewness * (reach - skewness / 6)) - 1))
