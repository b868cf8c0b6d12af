"""C3, what degradation follows: recoverability R_y of the network's own target, not noise as such.

The sharpest test: an ε network should degrade at LOW noise, an x0 network at high, a v network at both ends.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.falling import untestable
from ntkdiag.claims.finding import Finding, interval
from ntkdiag.claims.trend import kendall, permutation_p_value, permutations

STATEMENT = "Degradation follows the target's recoverability, not the noise level itself."
# Two rulers that order the buckets more alike than this cannot be told apart.
INDISTINGUISHABLE = 0.9


def examine(evidence: Evidence) -> Finding:
    """Effect: τ(effective rank, R_y) − τ(effective rank, log-SNR), in [−2, 2]; positive if R_y is the better ruler."""
    amplitude, log_snr = evidence.amplitude, evidence.log_snr
    likeness = float(kendall(amplitude, log_snr))
    if np.ptp(amplitude) <= 1e-9 * np.abs(amplitude).max():
        return untestable("C3", STATEMENT, "the amplitude is the same in every bucket for this target")
    if likeness > INDISTINGUISHABLE:
        return untestable(
            "C3", STATEMENT,
            f"R_y and log-SNR order the buckets alike for target {evidence.target} (τ = {likeness:+.2f}); "
            "an epsilon or v network can decide it",
        )  # fmt: skip
    series = evidence.net("effective_rank")

    def advantage(values: np.ndarray) -> np.ndarray:
        return kendall(amplitude, values) - kendall(log_snr, values)

    effect = float(advantage(series.full))
    low, high = interval(advantage(series.draws))
    orders, drawn = permutations(len(series.full), evidence.seed)
    return Finding(
        "C3", STATEMENT, effect, low, high,
        threshold=0.0,
        p_value=permutation_p_value(advantage(series.full[orders]), effect, drawn),
        test="τ with R_y minus τ with log-SNR of ln effective rank; permuted buckets, paired subsets",
        note=f"effective rank: τ = {float(kendall(amplitude, series.full)):+.2f} with R_y, "
        f"{float(kendall(log_snr, series.full)):+.2f} with log-SNR.",
    )  # fmt: skip
