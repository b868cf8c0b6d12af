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

CLAIMS: dict[str, Callable[[Evidence], Finding]] = {
    "C1": c1_spectral_weakening.examine,
    "C2": c2_low_rank.examine,
    "C3": c3_follows_recoverability.examine,
}


def judge(diagnosis: Diagnosis, *, seed: int = 0, draws: int = 200, fraction: float = 0.75) -> pd.DataFrame:
    """Test every claim on a diagnosis.

    Args:
        diagnosis: With refs["untrained"] the claims are about what training did; without it, about the network as it is.
        seed: Seed of subsets and permutations.
        draws: Subsets of the samples for intervals.
        fraction: Share of the samples in a subset.

    Returns:
        Columns claim, statement, verdict (supported | contradicted | inconclusive), effect, low, high (90% interval),
        threshold, p_value (one-sided), p_holm, test, note. C1 and C2: effects are differences of ln between the most and
        the least recoverable third of the buckets; C3: a difference of Kendall τ.

    Raises:
        InputError: too few buckets or samples to test anything.
    """
    evidence = gather(diagnosis, seed=seed, draws=draws, fraction=fraction)
    findings = [test(evidence) for test in CLAIMS.values()]
    corrected = holm([finding.p_value for finding in findings])
    rows = [
        {
            "claim": finding.claim,
            "statement": finding.statement,
            "verdict": finding.verdict(p_holm),
            "effect": finding.effect,
            "low": finding.low,
            "high": finding.high,
            "threshold": finding.threshold,
            "p_value": finding.p_value,
            "p_holm": p_holm,
            "test": finding.test,
            "note": finding.note,
        }
        for finding, p_holm in zip(findings, corrected, strict=True)
    ]
    return pd.DataFrame(rows)


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
    """Measure a network and test the claims on it; see `measure` for the arguments and `judge` for the result."""
    buckets = buckets or Buckets.uniform(-10, 10, count=10)
    return judge(measure(denoiser, data, buckets, samples=samples, probes=probes, seed=seed, refs=refs))
