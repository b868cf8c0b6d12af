"""C2, low effective rank: the entropy effective rank of the trace kernel falls where recoverability falls.

Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim
from ntkdiag.claims.trend import falls
from ntkdiag.claims.verdict import ClaimResult


@claim(
    "C2", "The kernel loses effective rank where the target is less recoverable.", reads=["effective_rank"]
)
def low_rank(evidence: Evidence) -> ClaimResult:
    """All buckets have the same number of samples, so the bias of the rank with N is common to them."""
    return falls("effective_rank", evidence)
