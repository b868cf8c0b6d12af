"""`judge` and `verify`: every registered claim is tested on one diagnosis; one row per claim.

p-values are corrected for the number of claims. Sample sizes, seeds, thresholds and tests are fixed before any data is
seen, and nothing is repeated until it is significant.
"""

from __future__ import annotations

import pandas as pd

import ntkdiag.claims.paper  # noqa: F401  registers the paper's claims
from ntkdiag.claims.evidence import gather
from ntkdiag.claims.p_values import holm
from ntkdiag.claims.register import CLAIMS
from ntkdiag.claims.verdict import verdict
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import Diagnosis, measure
from ntkdiag.process.buckets import DEFAULT_COUNT, BucketsLike

COLUMNS = [
    "claim", "statement", "verdict", "effect", "low", "high", "threshold", "p_value", "p_holm", "test", "note",
]  # fmt: skip


def judge(diagnosis: Diagnosis, *, seed: int = 0) -> pd.DataFrame:
    """Test every registered claim on a diagnosis.

    Args:
        diagnosis: With refs["untrained"] the claims are about what training did; without it, about the network as it is.
        seed: Seed of permutations.

    Returns:
        Columns claim, statement, verdict (supported | contradicted | inconclusive), effect, low, high (90% interval),
        threshold, p_value (one-sided), p_holm, test, note. Effects are differences of natural logarithms between thirds
        of the buckets; a claim with several parts shows the smallest of each number (the largest p-value). With fewer
        than 5 buckets no p-value is small enough for support.

    Raises:
        InputError: too few buckets or samples to test anything.
    """
    claims = list(CLAIMS.values())
    statistics = [name for claim in claims for name in claim.reads]
    evidence = gather(diagnosis, statistics, seed=seed)
    results = [claim.examine(evidence) for claim in claims]
    corrected = holm([result.p_value for result in results])
    beyond = _extrapolated(diagnosis.summary)
    rows = [
        {
            "claim": claim.name,
            "statement": claim.statement,
            "verdict": verdict(result, p_holm),
            "p_holm": p_holm,
            **vars(result),
            "note": " ".join(filter(None, (result.note, beyond))),
        }
        for claim, result, p_holm in zip(claims, results, corrected, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def verify(
    denoiser: Denoiser,
    data: DataLike,
    buckets: BucketsLike | None = None,
    *,
    samples: int = 64,
    probes: int = 8,
    seed: int = 0,
    refs: dict[str, Denoiser] | None = None,
    extrapolate: bool = False,
) -> pd.DataFrame:
    """Measure a network and test the claims on it.

    Args:
        denoiser, data, samples, probes, refs, extrapolate: As in `measure`.
        buckets: As in `measure`; ten over the range in which the schedule trains if None.
        seed: Seed of draws, probes and permutations.

    Returns:
        As `judge`.

    Raises:
        InputError: as `measure` and `judge`.
        MeasurementError: as `measure`.

    Example:
        verdicts = nd.verify(denoiser, nd.data.load("digits"), refs={"untrained": untrained})
        print(verdicts[["claim", "verdict", "effect", "low", "high"]])
    """
    levels = DEFAULT_COUNT if buckets is None else buckets
    diagnosis = measure(
        denoiser, data, levels, samples=samples, probes=probes, seed=seed, refs=refs, extrapolate=extrapolate
    )
    return judge(diagnosis, seed=seed)


def _extrapolated(summary: pd.DataFrame) -> str:
    """A remark on buckets at noise levels that the schedule never trains; empty if there are none."""
    count = int(summary["extrapolated"].sum()) if "extrapolated" in summary else 0
    return f"{count} of {len(summary)} noise levels were never seen in training." if count else ""
