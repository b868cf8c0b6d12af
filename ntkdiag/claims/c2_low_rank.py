"""C2, low effective rank: the entropy effective rank of the trace kernel falls where recoverability falls.

Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.falling import falling
from ntkdiag.claims.finding import Finding

STATEMENT = "The kernel loses effective rank where the target is less recoverable."


def examine(evidence: Evidence) -> Finding:
    """All buckets have the same number of samples, so the rank's bias with N is common to them."""
    return falling("C2", STATEMENT, "effective_rank", evidence)
