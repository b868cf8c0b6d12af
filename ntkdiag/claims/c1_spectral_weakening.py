"""C1, spectral weakening: trace and top eigenvalue of the trace kernel fall where recoverability falls (arXiv 2605.10790)."""

from __future__ import annotations

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.falling import falling, weakest
from ntkdiag.claims.finding import Finding

STATEMENT = "The kernel weakens (trace and top eigenvalue fall) where the target is less recoverable."


def examine(evidence: Evidence) -> Finding:
    """Both statistics must fall; the weaker one decides."""
    return weakest([falling("C1", STATEMENT, name, evidence) for name in ("trace", "top_eigenvalue")])
