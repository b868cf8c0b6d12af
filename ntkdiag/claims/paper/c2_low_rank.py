"""C2, rank: the effective rank of the trace kernel falls where the target is less recoverable.

The kernel without its shared answer is shown beside it: a kernel of one shared answer has a low rank, and can still tell
samples apart. Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.answer import Answer, falls
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim

STATISTICS = ("effective_rank", "participation_ratio_pairs")
BESIDE = ("shared_share", "centred_effective_rank", "centred_participation_ratio_pairs")


@claim(
    "C2",
    "The kernel loses effective rank where the target is less recoverable.",
    reads=(*STATISTICS, *BESIDE),
)
def low_rank(evidence: Evidence) -> Answer:
    """All buckets have the same number of samples, so the bias of the effective rank with N is common to them."""
    return falls("effective_rank", evidence)
