"""What a Gram matrix says: its eigenvalues, how many directions they hold, and how sure that is."""

from __future__ import annotations

from ntkdiag.spectra.eigen import Spectrum, eigenpairs, eigenvalues
from ntkdiag.spectra.intervals import (
    Interval,
    contrast_interval,
    interval_from_draws,
    mean_interval,
    subsample_interval,
    subsample_intervals,
)
from ntkdiag.spectra.rank import (
    decay_exponent,
    effective_rank,
    numerical_rank,
    participation_ratio,
    participation_ratio_pairs,
    stable_rank,
    top_k_energy,
)
from ntkdiag.spectra.rarefaction import rarefaction
from ntkdiag.spectra.resampling import Replicates, paired_statistics, paired_subsets
from ntkdiag.spectra.statistics import STATISTICS, Statistic, evaluate

__all__ = [
    "STATISTICS",
    "Interval",
    "Replicates",
    "Spectrum",
    "Statistic",
    "contrast_interval",
    "decay_exponent",
    "effective_rank",
    "eigenpairs",
    "eigenvalues",
    "evaluate",
    "interval_from_draws",
    "mean_interval",
    "numerical_rank",
    "paired_statistics",
    "paired_subsets",
    "participation_ratio",
    "participation_ratio_pairs",
    "rarefaction",
    "stable_rank",
    "subsample_interval",
    "subsample_intervals",
    "top_k_energy",
]
