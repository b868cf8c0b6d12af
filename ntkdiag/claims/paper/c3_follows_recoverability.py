"""C3, what degradation follows: recoverability R_y of the network's own target, not noise as such.

An ε network should degrade at low noise, an x0 network at high noise, a v network at both ends. The rank must fall
along R_y, and fall further along R_y than along the log-SNR. Where R_y does not simply rise or fall with noise (v), it
must also fall further than along the log-SNR backwards; otherwise a loss of rank at one end would pass for one at both.

Effects are contrasts of thirds, as in C2, and not differences of Kendall's τ: τ jumps when two buckets change places,
so its spread in a jackknife says little about its error, and it is as large for a trend of a thousandth as for one of a
factor of ten. τ is kept for the permutation test, where only ranks matter.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.p_values import kendall
from ntkdiag.claims.register import claim
from ntkdiag.claims.trend import compare, falls, signed, thirds
from ntkdiag.claims.verdict import ClaimResult, all_of, untestable
from ntkdiag.spectra.dense.eigen import Array

STATISTIC = "effective_rank"
# Two orderings of the buckets count as the same comparison if the cosine of their contrasts' weights exceeds this; tuned
# here.
ALIKE = 0.5


@claim(
    "C3", "Degradation follows the target's recoverability, not the noise level itself.", reads=[STATISTIC]
)
def follows_recoverability(evidence: Evidence) -> ClaimResult:
    """Rank falls along R_y, and more than along the log-SNR in either direction, where that is another comparison."""
    own = falls(STATISTIC, evidence)
    if np.isnan(own.p_value):
        return own
    weights = thirds(evidence.amplitude)
    rivals = {"log-SNR": evidence.log_snr, "−log-SNR": -evidence.log_snr}
    distinct = {
        name: ordering for name, ordering in rivals.items() if _likeness(weights, thirds(ordering)) <= ALIKE
    }
    if "log-SNR" not in distinct:
        return untestable(
            f"R_y rises with the log-SNR for target {evidence.target} in these buckets; "
            "an epsilon or v network can decide it, in buckets that reach both ends"
        )
    return all_of([own, *(_beats(name, ordering, weights, evidence) for name, ordering in distinct.items())])


def _likeness(first: Array, second: Array) -> float:
    """Cosine of two contrasts' weights."""
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _beats(name: str, rival: Array, weights: Array, evidence: Evidence) -> ClaimResult:
    """The fall along R_y minus the fall along a rival ordering of the buckets."""

    def advantage(values: Array) -> Array:
        return kendall(evidence.amplitude, values) - kendall(rival, values)

    found = compare(
        STATISTIC, evidence, weights - thirds(rival), advantage, test=f"the same for R_y minus {name}"
    )
    tau = float(kendall(rival, evidence.logs(STATISTIC)))
    return replace(found, note=f"τ with {name}: {signed(tau)}.")
