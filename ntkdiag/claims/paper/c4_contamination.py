"""C4, contamination: the share of gradient energy that is Bayes noise rises where the target is less recoverable.

Exact where the data's posterior is known; else with the posterior of the finite training set, which memorises it, and
labelled as such. Source: arXiv 2605.10790.
"""

from __future__ import annotations

import numpy as np

from ntkdiag.claims.answer import Answer, described, untestable
from ntkdiag.claims.description.recoverable import recoverable
from ntkdiag.claims.ends import CLEAN, NOISY, thirds
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim
from ntkdiag.claims.wording.numbers import percent

# An interval of this width says nothing of a share.
NEARLY_ALL = 0.9
# Noise below this share contradicts a target of which more than this cannot be recovered.
LITTLE = 0.1
FINITE = "contamination_finite"
SOURCES = {
    "contamination": "the exact posterior",
    FINITE: "the posterior of the finite training set, which recognises its own samples where there is little noise",
}


@claim("C4", "The share of gradient energy that is Bayes noise rises where the target is less recoverable.")
def contamination_rises(evidence: Evidence) -> Answer:
    """Means over the thirds of the range, with the range of the 90% intervals."""
    summary = evidence.kept_summary
    for column, source in SOURCES.items():
        if column in summary and np.isfinite(summary[column].to_numpy(dtype=float)).all():
            parts = thirds(summary["log_snr"].to_numpy(dtype=float))
            said = [
                _mean(evidence, column, parts[part], words)
                for part, words in (
                    (NOISY, "at the noisy end"),
                    ("middle", "in the middle"),
                    (CLEAN, "at the clean end"),
                )
            ]
            text = (
                "Gradient energy is the mean squared length of a sample's gradient, and Bayes noise the part that comes "
                f"from what the input does not determine. By {source}, its share is {', '.join(said)} (brackets: lowest "
                "and highest 90% limit of the third)."
            )
            noise = float(summary.loc[parts[CLEAN], column].mean())
            return described(f"{text} {_memorised(evidence, noise) if column == FINITE else ''}".strip())
    return untestable("neither the posterior of the data nor that of the training set was computed")


def _memorised(evidence: Evidence, noise: float) -> str:
    """What the finite training set hides at the clean end, where its noise is little and the floor of the loss is not."""
    found = recoverable(evidence)
    if found is None or noise >= LITTLE or 1 - found.shares[CLEAN] <= LITTLE:
        return ""
    return (
        f"At the clean end this holds for those samples alone: of new ones {'' if found.exact else 'up to '}"
        f"{percent(1 - found.shares[CLEAN])} of the target cannot be recovered there, which is the floor that C5 counts."
    )


def _mean(evidence: Evidence, column: str, part: np.ndarray, words: str) -> str:
    """Mean of a column over a third, with the lowest lower and the highest upper end of its intervals."""
    rows = evidence.kept_summary[part]
    value, low, high = (
        float(np.clip(number, 0, 1))
        for number in (rows[column].mean(), rows[f"{column}_low"].min(), rows[f"{column}_high"].max())
    )
    if np.isnan(low) or np.isnan(high):
        return f"{percent(value)} {words}"
    limits = f"[{percent(low)}, {percent(high)}]"
    if high - low > NEARLY_ALL:
        return f"not known {words} ({limits} leaves nearly everything open)"
    return f"{percent(value)} {limits} {words}"
