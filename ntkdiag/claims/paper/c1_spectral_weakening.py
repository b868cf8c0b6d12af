"""C1, spectral weakening: trace and top eigenvalue of the trace kernel fall where recoverability falls.

Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim
from ntkdiag.claims.trend import falls
from ntkdiag.claims.verdict import ClaimResult, all_of

STATISTICS = ("trace", "top_eigenvalue")


@claim(
    "C1",
    "The kernel weakens (trace and top eigenvalue fall) where the target is less recoverable.",
    reads=STATISTICS,
)
def spectral_weakening(evidence: Evidence) -> ClaimResult:
    """Both statistics must fall."""
    return all_of([falls(statistic, evidence) for statistic in STATISTICS])
