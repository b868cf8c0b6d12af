"""What the numbers say, in sentences: the few things a person would look up first.

Only comparisons that the intervals allow are called differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.columns import column, ordered
from ntkdiag.report.figures.coupling import coupling_matrix
from ntkdiag.report.formatting import interval, level, number

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.diagnosis import Diagnosis


def summary_sentences(diagnosis: Diagnosis) -> list[str]:
    """Sentences on rank, control, strength, samples and conflicts; those that cannot be said are left out.

    Args:
        diagnosis: What was measured.

    Returns:
        Plain text, a sentence or two each.
    """
    summary = ordered(diagnosis.summary)
    said = [
        _extremes(summary),
        _control(summary, diagnosis),
        _strength(summary),
        _enough(diagnosis),
        _conflict(diagnosis),
    ]
    return [sentence for sentence in said if sentence]


def _extremes(summary: pd.DataFrame) -> str:
    rank = column(summary, "effective_rank")
    if np.isfinite(rank).sum() == 0:
        return ""
    low, high = int(np.nanargmin(rank)), int(np.nanargmax(rank))
    if low == high:
        return f"Effective rank is {_ranged(summary, low)} at log-SNR {_at(summary, low)}."
    apart = column(summary, "effective_rank_high")[low] < column(summary, "effective_rank_low")[high]
    ending = "" if apart else "; their intervals overlap or are unknown, so this is no sure difference"
    return (
        f"Effective rank is lowest at log-SNR {_at(summary, low)}, with {_ranged(summary, low)}, and highest at "
        f"{_at(summary, high)}, with {_ranged(summary, high)}{ending}."
    )


def _control(summary: pd.DataFrame, diagnosis: Diagnosis) -> str:
    if "untrained" not in diagnosis.refs:
        return "No untrained control was measured, so nothing here says what training changed."
    control = ordered(diagnosis.refs["untrained"].summary)
    if not np.array_equal(column(control, "log_snr"), column(summary, "log_snr")):
        return ""
    below = column(summary, "effective_rank_high") < column(control, "effective_rank_low")
    above = column(summary, "effective_rank_low") > column(control, "effective_rank_high")
    if not below.any() and not above.any():
        return "At no noise level does the trained network's rank differ from the untrained one's beyond the intervals."
    parts = [
        f"{word} the untrained network's at {_levels(summary, places)}"
        for word, places in (("below", below), ("above", above))
        if places.any()
    ]
    return "Beyond the intervals, the trained network's rank lies " + " and ".join(parts) + "."


def _strength(summary: pd.DataFrame) -> str:
    trace = column(summary, "trace")
    if len(trace) < 2 or not (np.isfinite(trace) & (trace > 0)).all():
        return ""
    low, high = int(np.argmin(trace)), int(np.argmax(trace))
    return (
        f"The kernel's trace is {number(trace[high] / trace[low], 2)} times as large at log-SNR "
        f"{_at(summary, high)} as at {_at(summary, low)}, in the target's own units."
    )


def _enough(diagnosis: Diagnosis) -> str:
    """Whether rarefaction has flattened: the rank of the largest subset against the one before it."""
    if diagnosis.rarefaction.empty:
        return ""
    rising = []
    for _, rows in diagnosis.rarefaction.groupby("log_snr"):
        rows = ordered(rows, "samples")
        count, rank = column(rows, "samples"), column(rows, "effective_rank")
        if len(rows) > 1 and rank[-2] > 0 and count[-1] > count[-2]:
            rising.append(np.log(rank[-1] / rank[-2]) / np.log(count[-1] / count[-2]))
    if not rising or not np.isfinite(rising).any():
        return ""
    steepest = 2 ** float(np.nanmax(rising)) - 1
    # A tenth on doubling is the tool's own line between flat and rising (tuned here).
    if steepest < 0.1:
        return "Rarefaction has flattened: twice the samples would add less than a tenth to any rank."
    return (
        f"Rarefaction still rises: twice the samples would add about {round(100 * steepest)}% to the rank of some "
        "noise levels, so ranks are comparable with each other but too low in themselves."
    )


def _conflict(diagnosis: Diagnosis) -> str:
    levels, matrix = coupling_matrix(diagnosis, "gradient_cosine")
    if len(levels) < 2 or not np.isfinite(matrix).any():
        return ""
    matrix = np.clip(matrix, -1, 1)
    row, place = np.unravel_index(int(np.nanargmin(matrix)), matrix.shape)
    least = matrix[row, place]
    if least >= 0:
        known = np.isfinite(matrix).all()
        which = (
            "No two noise levels"
            if known
            else "Of the noise levels whose mean gradient stands out of noise, no two"
        )
        return f"{which} have mean gradients that pull against each other."
    first, second = sorted((levels[row], levels[place]))
    return (
        f"The mean gradients at log-SNR {level(first)} and {level(second)} pull against each other the most "
        f"(cosine {number(least, 2)})."
    )


def _ranged(summary: pd.DataFrame, place: int) -> str:
    return interval(*(column(summary, f"effective_rank{end}")[place] for end in ("", "_low", "_high")))


def _at(summary: pd.DataFrame, place: int) -> str:
    return level(column(summary, "log_snr")[place])


def _levels(summary: pd.DataFrame, places: np.ndarray) -> str:
    """ "log-SNR −9 and −7", "every noise level"."""
    if places.all():
        return "every noise level"
    named = [level(value) for value in column(summary, "log_snr")[places]]
    return "log-SNR " + (", ".join(named[:-1]) + " and " + named[-1] if len(named) > 1 else named[0])
