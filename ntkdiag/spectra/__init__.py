"""Spectra of kernels: eigenvalues, effective ranks, and the uncertainty of both.

`dense/` reads a Gram matrix in memory, `uncertainty/` gives its statistics intervals over samples and probes, and
`operators/` estimates the same of a kernel that is only known as a product (the full kernel).
"""

from __future__ import annotations

from ntkdiag.confidence import Interval
from ntkdiag.errors import explain_calls
from ntkdiag.spectra.dense.eigen import Spectrum, eigenpairs, eigenvalues
from ntkdiag.spectra.dense.named_statistics import STATISTICS, Statistic, evaluate
from ntkdiag.spectra.dense.pairs import participation_ratio_pairs
from ntkdiag.spectra.dense.rank import (
    decay_exponent,
    effective_rank,
    numerical_rank,
    participation_ratio,
    stable_rank,
    top_k_energy,
)
from ntkdiag.spectra.dense.similarity import centred_alignment, eigenspace_overlap, neighbour_overlap
from ntkdiag.spectra.operators.block_lanczos import TopEigenpairs, top_eigenpairs
from ntkdiag.spectra.operators.quadrature import (
    Quadrature,
    density,
    entropy_effective_rank,
    lanczos_quadrature,
)
from ntkdiag.spectra.operators.signal import SignalSpectrum, signal_spectrum
from ntkdiag.spectra.operators.stochastic_trace import TraceEstimates, trace_estimates
from ntkdiag.spectra.uncertainty.intervals import (
    contrast_interval,
    contrast_of_replicates,
    subsample_interval,
    subsample_intervals,
)
from ntkdiag.spectra.uncertainty.jackknife import interval_from_replicates, mean_interval
from ntkdiag.spectra.uncertainty.left_out import Replicates
from ntkdiag.spectra.uncertainty.rarefaction import rarefaction

__all__ = [
    "STATISTICS",
    "Interval",
    "Quadrature",
    "Replicates",
    "SignalSpectrum",
    "Spectrum",
    "Statistic",
    "TopEigenpairs",
    "TraceEstimates",
    "centred_alignment",
    "contrast_interval",
    "contrast_of_replicates",
    "decay_exponent",
    "density",
    "effective_rank",
    "eigenpairs",
    "eigenspace_overlap",
    "eigenvalues",
    "entropy_effective_rank",
    "evaluate",
    "interval_from_replicates",
    "lanczos_quadrature",
    "mean_interval",
    "neighbour_overlap",
    "numerical_rank",
    "participation_ratio",
    "participation_ratio_pairs",
    "rarefaction",
    "signal_spectrum",
    "stable_rank",
    "subsample_interval",
    "subsample_intervals",
    "top_eigenpairs",
    "top_k_energy",
    "trace_estimates",
]

explain_calls(__name__, "nd.spectra.effective_rank(gram)")
