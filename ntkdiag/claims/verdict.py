"""Verdicts: every claim tested on one Diagnosis, p-values corrected together, a row a claim.

Sample sizes, seeds, thresholds and tests are fixed before data is seen; nothing is repeated until it is significant.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ntkdiag.claims import c1_spectral_weakening, c2_low_rank, c3_follows_recoverability
from ntkdiag.claims.evidence import Evidence, gather
from ntkdiag.claims.finding import Finding
from ntkdiag.claims.trend import holm
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import Diagnosis, measure
from ntkdiag.process.buckets import Buckets
from ntkdiag.spectra.uncertainty.resampling import DRAWS

COLUMNS = [
    "claim", "statement", "verdict", "effect", "low", "high", "threshold", "p_value", "p_holm", "test", "note",
]  # fmt: skip
CLAIMS: dict[str, Callable[[Evidence], Finding]] = {
    "C1": c1_spectral_weakening.examine,
    "C2": c2_low_rank.examine,
    "C3": c3_follows_recoverability.examine,
}


def judge(diagnosis: Diagnosis, *, seed: int = 0, draws: int = DRAWS) -> pd.DataFrame:
    """Test every claim on a diagnosis.

    Args:
        diagnosis: With refs["untrained"] the claims are about what training did; without it, about the network as it is.
        seed: Seed of subsets and permutations.
        draws: Subsets of the samples for intervals.

    Returns:
        Columns claim, statement, verdict (supported | contradicted | inconclusive), effect, low, high (90% interval),
        threshold, p_value (one-sided), p_holm, test, note. Effects are differences of natural logarithms between thirds
        of the buckets; a claim with several parts shows the smallest of each number (the largest p-value). With fewer
        than 5 buckets no p-value is small enough for support.

    Raises:
        InputError: too few buckets or samples to test anything.
    """
    evidence = gather(diagnosis, seed=seed, draws=draws)
    findings = [test(evidence) for test in CLAIMS.values()]
    corrected = holm([finding.p_value for finding in findings])
    rows = [
        {**vars(finding), "verdict": finding.verdict(p_holm), "p_holm": p_holm}
        for finding, p_holm in zip(findings, corrected, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def verify(
    denoiser: Denoiser,
    data: Data,
    buckets: Buckets | None = None,
    *,
    samples: int = 64,
    probes: int = 8,
    seed: int = 0,
    refs: dict[str, Denoiser] | None = None,
) -> pd.DataFrame:
    """Measure a network and test the claims on it.

    Args:
        denoiser, data, samples, probes, refs: As in `measure`.
        buckets: Ten from log-SNR −10 to 10 if None.
        seed: Of draws, probes, subsets and permutations.

    Returns:
        As `judge`.

    Raises:
        InputError: as `measure` and `judge`.
        MeasurementError: as `measure`.
    """
    buckets = Buckets.uniform(-10, 10, count=10) if buckets is None else buckets
    diagnosis = measure(denoiser, data, buckets, samples=samples, probes=probes, seed=seed, refs=refs)
    return judge(diagnosis, seed=seed)
