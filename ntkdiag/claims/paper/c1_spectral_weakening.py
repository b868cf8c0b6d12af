"""C1, strength: trace and top eigenvalue of the trace kernel fall where the target is less recoverable.

One network shows at which ends they fall, in units of its own target, and how recoverable each end is.
Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.answer import Answer, falls
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim

STATISTICS = ("trace", "top_eigenvalue")


@claim(
    "C1",
    "The kernel weakens (trace and top eigenvalue fall) where the target is less recoverable.",
    reads=(*STATISTICS, "centred_trace", "centred_top_eigenvalue"),
)
def spectral_weakening(evidence: Evidence) -> Answer:
    """At which ends both fall."""
    return falls(STATISTICS, evidence)
