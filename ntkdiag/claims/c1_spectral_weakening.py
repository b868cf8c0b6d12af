"""C1, spectral weakening: trace and top eigenvalue of the trace kernel fall where recoverability falls.

Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.falling import falling
from ntkdiag.claims.finding import Finding, all_of

STATEMENT = "The kernel weakens (trace and top eigenvalue fall) where the target is less recoverable."


def examine(evidence: Evidence) -> Finding:
    """Both statistics must fall."""
    return all_of([falling("C1", STATEMENT, name, evidence) for name in ("trace", "top_eigenvalue")])
