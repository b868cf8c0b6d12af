"""C3, what degradation follows: recoverability of the network's own target, not noise as such.

The curve of one network over log-SNR is smooth, and so are all rulers: ten points of two smooth curves often agree by
themselves, and a curve that belongs to the target cannot be told from the ruler. Only networks of several targets, trained
alike, can decide. Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.answer import Answer, untestable
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim


@claim("C3", "Degradation follows the target's recoverability, not the noise level itself.")
def follows_recoverability(evidence: Evidence) -> Answer:
    """Never from one network; the rulers describe what its rank runs along with."""
    return untestable(
        "its rank and every ruler are smooth curves over log-SNR, which often agree by themselves; networks of several "
        "targets from the same seeds can decide it"
    )
