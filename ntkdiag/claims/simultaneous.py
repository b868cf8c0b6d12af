"""Limits that hold for many effects at once: how far each interval must reach, from how the effects err together.

Statistics of one kernel err together, so Bonferroni's correction would be too strict. The greatest of the standardised
errors is simulated with the dependence that the jackknife shows (max-t; Chernozhukov, Chetverikov & Kato 2013, "Gaussian
approximations and multiplier bootstrap for maxima"), and its quantile becomes the level of every single interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from ntkdiag.spectra import Replicates
from ntkdiag.spectra.dense.eigen import Array
from ntkdiag.spectra.uncertainty.left_out import sample_groups

_DRAWS = 20_000
_SEED = 20_260_510  # of the simulated maxima; fixed, so that equal data give equal limits


def single_level(effects: Sequence[Replicates], samples: int, level: float) -> float:
    """Level of each single interval at which all hold together with probability `level`, each side counted by itself.

    Args:
        effects: Each with its values without parts of the data, all without the same parts.
        samples: N.
        level: Nominal level of all together, in (0, 1): all lower limits hold with probability (1 + level)/2, and so do
            all upper limits.

    Returns:
        A level between `level` (one effect, or effects that err as one) and Bonferroni's.
    """
    shares = [error_shares(one, samples) for one in effects]
    errors = np.stack([row / np.linalg.norm(row) for row in shares if row.any()] or [np.ones(1)])
    multipliers = np.random.default_rng(_SEED).standard_normal((errors.shape[1], _DRAWS))
    highest = np.quantile((errors @ multipliers).max(0), (1 + level) / 2)
    found = 1 - 2 * float(special.ndtr(-highest))
    return float(np.clip(found, level, 1 - (1 - level) / len(errors)))


def error_shares(effect: Replicates, samples: int) -> Array:
    """What each group of samples, and each probe, adds to the error of an effect."""
    groups = len(effect.without_samples)
    kept = samples - np.array([len(group) for group in sample_groups(samples, groups)])
    mean = np.average(effect.without_samples, weights=kept)
    parts = [kept / samples * (mean - effect.without_samples) * np.sqrt(groups / (groups - 1))]
    if effect.without_probe is not None:
        probes = effect.without_probe
        parts.append((probes.mean() - probes) * np.sqrt((len(probes) - 1) / len(probes)))
    shares: Array = np.concatenate(parts)
    return shares
