"""C3, what degradation follows: recoverability R_y of the network's own target, not noise as such.

An ε network should degrade at low noise, an x0 network at high noise, a v network at both ends. The rank must fall
along R_y, and fall further along R_y than along the log-SNR. Where R_y does not simply rise or fall with noise (v), it
must also fall further than along the log-SNR backwards, or loss of rank at one end alone would pass for loss at both.

Effects are contrasts of thirds, as in C2, and not differences of Kendall's τ: τ jumps when two buckets change places,
so its spread over subsets says little of its error, and it is as large for a trend of a thousandth as for one of a
factor of ten. τ is kept for the permutation test, where only ranks matter.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.falling import compared, falling
from ntkdiag.claims.finding import Finding, all_of, untestable
from ntkdiag.claims.trend import contrast, kendall, told
from ntkdiag.spectra.dense.eigen import Array

STATEMENT = "Degradation follows the target's recoverability, not the noise level itself."
STATISTIC = "effective_rank"
# Rulers whose thirds are more alike than this (cosine of the contrasts' weights; tuned here) compare the same buckets.
ALIKE = 0.5


def examine(evidence: Evidence) -> Finding:
    """Rank falls along R_y, and more than along each rival ruler that R_y can be told from."""
    own = falling("C3", STATEMENT, STATISTIC, evidence)
    if np.isnan(own.p_value):
        return own
    weights = contrast(evidence.amplitude)
    rivals = {"log-SNR": evidence.log_snr, "−log-SNR": -evidence.log_snr}
    told_apart = {
        name: ruler for name, ruler in rivals.items() if _likeness(weights, contrast(ruler)) <= ALIKE
    }
    if "log-SNR" not in told_apart:
        return untestable(
            "C3",
            STATEMENT,
            f"R_y rises with the log-SNR for target {evidence.target} in these buckets; "
            "an epsilon or v network can decide it, in buckets that reach both ends",
        )
    return all_of([own, *(_beats(name, ruler, weights, evidence) for name, ruler in told_apart.items())])


def _likeness(first: Array, second: Array) -> float:
    """Cosine of two contrasts' weights."""
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _beats(name: str, rival: Array, weights: Array, evidence: Evidence) -> Finding:
    """The fall along R_y minus the fall along a rival ruler."""

    def advantage(values: Array) -> Array:
        return kendall(evidence.amplitude, values) - kendall(rival, values)

    test = f"the same for R_y minus {name}"
    found = compared("C3", STATEMENT, STATISTIC, evidence, weights - contrast(rival), advantage, test)
    note = f"τ with {name}: {told(float(kendall(rival, evidence.logs(STATISTIC))))}."
    return replace(found, note=note)
