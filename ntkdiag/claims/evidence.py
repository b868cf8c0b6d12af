"""Evidence: what every claim reads from a Diagnosis, on the full sample and on shared subsets of it.

The same subsets of samples are used in every bucket and in the untrained control, so that differences
and trends are formed within pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntkdiag.diagnosis.result import Diagnosis
from ntkdiag.errors import InputError
from ntkdiag.spectra.intervals import paired_subsets
from ntkdiag.spectra.statistics import evaluate

Array = NDArray[np.float64]

CONTROL = "untrained"


@dataclass(frozen=True)
class Series:
    """ln of a kernel statistic over buckets.

    Attributes:
        full: [B] on all samples.
        draws: [S, B] on subsets without replacement, recentred and rescaled so that their spread is that of the
            full-sample estimate (delete-d jackknife).
    """

    full: Array
    draws: Array

    def minus(self, other: Series) -> Series:
        """ln of the ratio to another series on the same draws."""
        return Series(self.full - other.full, self.draws - other.draws)


@dataclass(frozen=True)
class Evidence:
    """Everything a claim may look at.

    Attributes:
        log_snr: Bucket centres [B].
        amplitude: Recoverability R_y of each bucket [B].
        statistics: "trace", "top_eigenvalue", "effective_rank" → the network's own series.
        control: The same of the untrained network; empty if none was measured.
        target: What the network predicts.
        seed: Seed of subsets and permutations.
    """

    log_snr: Array
    amplitude: Array
    statistics: dict[str, Series]
    control: dict[str, Series]
    target: str
    seed: int

    def net(self, statistic: str) -> Series:
        """The series relative to the untrained control where there is one, else as it is."""
        series = self.statistics[statistic]
        return series.minus(self.control[statistic]) if self.control else series


def gather(diagnosis: Diagnosis, *, seed: int, draws: int, fraction: float) -> Evidence:
    """Collect the evidence from a diagnosis.

    Raises:
        InputError: fewer than 3 buckets, or fewer than 8 samples a bucket.
    """
    summary = diagnosis.summary
    grams = diagnosis.grams["trace"].numpy()
    if len(grams) < 3:
        raise InputError("buckets", expected="at least 3, to speak of a trend", got=len(grams))
    if grams.shape[1] < 8:
        raise InputError("samples", expected="at least 8 a bucket, to form intervals", got=grams.shape[1])
    subsets = paired_subsets(grams.shape[1], draws, fraction, seed)
    reference = diagnosis.refs.get(CONTROL)
    return Evidence(
        log_snr=summary["log_snr"].to_numpy(),
        amplitude=summary["amplitude"].to_numpy(),
        statistics=_series(grams, subsets),
        control=_series(reference.grams["trace"].numpy(), subsets) if reference else {},
        target=str(diagnosis.meta["config"]["target"]),
        seed=seed,
    )


def _series(grams: Array, subsets: NDArray[np.intp]) -> dict[str, Series]:
    """ln of each statistic for kernels [B, N, N]."""
    out = {}
    for name in ("trace", "top_eigenvalue", "effective_rank"):
        full = np.array([evaluate(name, gram[None])[0] for gram in grams])
        draws = np.stack([evaluate(name, _submatrices(gram, subsets)) for gram in grams], axis=1)
        out[name] = _rescaled(_safe_log(full), _safe_log(draws), grams.shape[1], subsets.shape[1])
    return out


def _submatrices(gram: Array, subsets: NDArray[np.intp]) -> Array:
    return gram[subsets[:, :, None], subsets[:, None, :]]


def _rescaled(full: Array, draws: Array, samples: int, kept: int) -> Series:
    """Spread of subset estimates → spread of the full-sample estimate: variance times n/(N−n), centred on the estimate."""
    centred = draws - draws.mean(0)
    return Series(full, full + centred * np.sqrt(kept / (samples - kept)))


def _safe_log(values: Array) -> Array:
    return np.log(np.maximum(values, np.finfo(float).tiny))
