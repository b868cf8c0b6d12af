"""C4, contamination: the share of gradient energy that is Bayes noise rises where the target is less recoverable.

Exact where the data's posterior is known; else with the posterior of the finite training set, which memorises it, and
labelled as such. Source: arXiv 2605.10790.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.claims.answer import Answer, described, untestable
from ntkdiag.claims.ends import CLEAN, NOISY, thirds
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim
from ntkdiag.claims.wording.numbers import percent

# An interval of this width says nothing of a share.
NEARLY_ALL = 0.9
SOURCES = {
    "contamination": "with the exact posterior",
    "contamination_finite": "with the posterior of the finite training set; where there is little noise it recognises the "
    "sample, so that its noise is 0% there whatever the data",
}


@claim("C4", "The share of gradient energy that is Bayes noise rises where the target is less recoverable.")
def contamination_rises(evidence: Evidence) -> Answer:
    """Means over the thirds of the range, with the range of the 90% intervals."""
    summary = evidence.kept_summary
    for column, source in SOURCES.items():
        if column in summary and np.isfinite(summary[column].to_numpy(dtype=float)).all():
            parts = thirds(summary["log_snr"].to_numpy(dtype=float))
            said = [
                f"{_mean(evidence, column, parts[part])} {words}"
                for part, words in (
                    (NOISY, "at the noisy end"),
                    ("middle", "in the middle"),
                    (CLEAN, "at the clean end"),
                )
            ]
            return described(f"Bayes noise is {', '.join(said)} of the gradient energy ({source}).")
    return untestable("neither the posterior of the data nor that of the training set was computed")


def _mean(evidence: Evidence, column: str, part: np.ndarray) -> str:
    """Mean of a column over a third, with the lowest lower and the highest upper end of its intervals."""
    rows = evidence.kept_summary[part]
    value, low, high = (
        float(np.clip(number, 0, 1))
        for number in (rows[column].mean(), rows[f"{column}_low"].min(), rows[f"{column}_high"].max())
    )
    if np.isnan(low) or np.isnan(high):
        return percent(value)
    said = f"{percent(value)} [{percent(low)}, {percent(high)}]"
    return f"not known, {said}," if high - low > NEARLY_ALL else said
