"""From a value and its resampled values to an interval: the delete-d jackknife (Shao & Wu 1989).

With n = N − d samples kept, n/d times the variance over subsets estimates the variance of the full-sample
statistic. Intervals are value ± t · standard error, on the scale where the error is nearest to normal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ntkdiag.confidence import Interval, quantile, require_level
from ntkdiag.errors import InputError, require_one_of
from ntkdiag.spectra.dense.eigen import Array, GramLike, real_array
from ntkdiag.spectra.dense.named_statistics import Scale
from ntkdiag.spectra.uncertainty.resampling import Replicates

# scale → (forward, backward, derivative of backward expressed in the value)
_SCALES: dict[str, tuple[Callable[..., Array], Callable[..., Array], Callable[[float], float]]] = {
    "linear": (np.asarray, np.asarray, lambda value: 1.0),
    "log": (np.log, np.exp, lambda value: value),
    "log1p": (np.log1p, np.expm1, lambda value: 1.0 + value),
}


def interval_from_draws(
    replicates: Replicates,
    *,
    samples: int,
    kept: int,
    level: float = 0.9,
    scale: Scale = "linear",
    minimum: float = -np.inf,
) -> Interval:
    """Delete-d jackknife interval from a value and its resampled values.

    Variance over samples: n/(N − n) times that over subsets. Variance over R probes: (R − 1)/R Σ(θ_r − mean)²
    (Efron & Stein 1981). They add; the degrees of freedom of Student's t follow Satterthwaite (1946), N − 1
    without probes.

    Args:
        replicates: The value and its draws.
        samples, kept: N and n.
        level: In (0, 1).
        scale: "linear", "log" (positive values) or "log1p" (values above −1).
        minimum: The lower end is not reported below it.

    Raises:
        InputError: level or scale unknown, or kept not in 1 … N − 1.
    """
    require_level(level)
    require_one_of("scale", scale, _SCALES)
    if not 0 < kept < samples:
        raise InputError("kept", expected=f"1 to {samples - 1} of {samples} samples", got=kept)
    method = f"delete-{samples - kept} jackknife of {samples} samples, {len(replicates.draws)} draws, {scale}"
    forward = _SCALES[scale][0]
    if np.isfinite(replicates.value) and np.all(replicates.draws == replicates.value):
        over_samples = 0.0  # exact, even where the scale is undefined (ln 0 of a zero matrix)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            over_samples = float(forward(replicates.draws).var()) * kept / (samples - kept)
    if replicates.probe_draws is None:
        return _symmetric(replicates.value, over_samples, samples - 1, level, scale, minimum, method)
    count = len(replicates.probe_draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        over_probes = float(forward(replicates.probe_draws).var()) * (count - 1)
    variance = over_samples + over_probes
    spread = over_samples**2 / (samples - 1) + over_probes**2 / (count - 1)
    freedom = variance**2 / spread if spread > 0 else samples - 1
    method = f"{method}; delete-one jackknife of {count} probes"
    return _symmetric(replicates.value, variance, freedom, level, scale, minimum, method)


def mean_interval(values: GramLike, *, level: float = 0.9, scale: Scale = "log") -> Interval:
    """Interval of the mean of independent per-sample numbers (losses): covers the population mean.

    The jackknife variance of a mean is s²/N for every d, so no subsets are needed. Nominal 90% held 89 to 92% at N = 64 for
    exponential and chi-squared values, 85% for a lognormal of σ = 1 (analysis/coverage).

    Args:
        values: [N], N ≥ 2.
        level: In (0, 1).
        scale: "log" for losses, which are positive and skewed; "linear" for numbers of either sign.

    Raises:
        InputError: fewer than 2 numbers, not finite, or a level or scale that is unknown.
    """
    require_level(level)
    require_one_of("scale", scale, _SCALES)
    sample = real_array(values, "per-sample values")
    if sample.ndim != 1 or len(sample) < 2:
        raise InputError("per-sample values", expected="shape [N], N ≥ 2", got=f"shape {list(sample.shape)}")
    mean, error = float(sample.mean()), float(sample.std(ddof=1) / np.sqrt(len(sample)))
    method = f"standard error of the mean of {len(sample)} samples, {scale}"
    slope = _SCALES[scale][2](mean)
    variance = (error / slope) ** 2 if slope > 0 else 0.0 if error == 0 else np.nan
    return _symmetric(mean, variance, len(sample) - 1, level, scale, -np.inf, method)


def _symmetric(
    value: float, variance: float, freedom: float, level: float, scale: str, minimum: float, method: str
) -> Interval:
    """value ± t · √variance on the given scale, with ends in units of the value."""
    if variance == 0 and np.isfinite(value):
        return Interval(value, value, value, 0.0, level, method)
    forward, backward, slope = _SCALES[scale]
    method = f"{method}, t({freedom:.0f})"
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        centre, error = forward(value), np.sqrt(variance)
        if not (np.isfinite(centre) and np.isfinite(error)):
            return Interval(value, np.nan, np.nan, np.nan, level, method)
        reach = quantile(level, freedom) * error
        low, high = float(backward(centre - reach)), float(backward(centre + reach))
    low = min(max(low, minimum), value)  # an estimate may lie below what the truth can be
    return Interval(value, low, high, float(error * slope(value)), level, method)
