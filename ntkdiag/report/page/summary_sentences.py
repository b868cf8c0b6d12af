"""The sentences under "At a glance": one function a sentence, each of which reads its numbers off the diagnosis.

A difference is stated only where intervals do not overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.report.columns import column, extrapolated, ordered
from ntkdiag.report.figures.coupling import coupling_matrix
from ntkdiag.report.formatting import interval, level, number

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.diagnosis import Diagnosis

# Doubling the samples adds less than this share to the rank where there are enough of them (tuned here).
FLAT = 0.1


def summary_sentences(diagnosis: Diagnosis) -> list[str]:
    """What a person would look up first, in sentences; a sentence whose numbers are missing is left out.

    Args:
        diagnosis: What was measured.

    Returns:
        Plain text, a sentence or two each.

    Example:
        >>> nd.report.summary_sentences(diagnosis)[0]  # doctest: +SKIP
        'The effective rank is lowest at log-SNR −9, with 2.28 [2.12, 2.48], and highest at 9, with 19.2 [17.8, 20.8].'
    """
    summary = ordered(diagnosis.summary)
    sentences = [
        levels_never_trained(summary),
        kernels_of_zero(summary),
        lowest_and_highest_rank(summary),
        rank_against_untrained(summary, diagnosis),
        largest_and_smallest_trace(summary),
        whether_samples_were_enough(diagnosis.rarefaction),
        opposing_gradients(diagnosis),
    ]
    return [sentence for sentence in sentences if sentence]


def levels_never_trained(summary: pd.DataFrame) -> str:
    """At which noise levels the network was measured though its schedule never trains them."""
    beyond = extrapolated(summary)
    if not beyond.any():
        return ""
    return f"The network never saw {_levels(summary, beyond)} in training: what is measured there is extrapolated."


def kernels_of_zero(summary: pd.DataFrame) -> str:
    """At which noise levels no parameter moves any output, so that there is nothing to take a rank of."""
    zero = column(summary, "trace") == 0
    if not zero.any():
        return ""
    return f"The kernel is zero at {_levels(summary, zero)}: no parameter moves an output there, and ranks mean nothing."


def lowest_and_highest_rank(summary: pd.DataFrame) -> str:
    """Where the effective rank is lowest and highest, and whether the two differ beyond their intervals."""
    rank = column(summary, "effective_rank")
    if np.isfinite(rank).sum() == 0:
        return ""
    low, high = int(np.nanargmin(rank)), int(np.nanargmax(rank))
    if low == high:
        return f"The effective rank is {_rank(summary, low)} at log-SNR {_log_snr(summary, low)}."
    differ = column(summary, "effective_rank_high")[low] < column(summary, "effective_rank_low")[high]
    doubt = "" if differ else " Their intervals overlap or are unknown, so this may be no real difference."
    return (
        f"The effective rank is lowest at log-SNR {_log_snr(summary, low)}, with {_rank(summary, low)}, and highest at "
        f"{_log_snr(summary, high)}, with {_rank(summary, high)}.{doubt}"
    )


def rank_against_untrained(summary: pd.DataFrame, diagnosis: Diagnosis) -> str:
    """At which noise levels training has lowered or raised the effective rank."""
    if "untrained" not in diagnosis.refs:
        return (
            "No untrained network was measured for comparison, so nothing here shows what training changed."
        )
    control = ordered(diagnosis.refs["untrained"].summary)
    if not np.array_equal(column(control, "log_snr"), column(summary, "log_snr")):
        return ""
    control_named = one_untrained(diagnosis)
    below = column(summary, "effective_rank_high") < column(control, "effective_rank_low")
    above = column(summary, "effective_rank_low") > column(control, "effective_rank_high")
    if not below.any() and not above.any():
        return (
            f"At no noise level does the effective rank of the trained network differ from that of {control_named} by "
            "more than the intervals."
        )
    parts = [
        f"{side} at {_levels(summary, places)}"
        for side, places in (("lower", below), ("higher", above))
        if places.any()
    ]
    return (
        f"Compared with {control_named} at each noise level by itself, the effective rank of the trained network is "
        f"{' and '.join(parts)}; there the intervals do not overlap. The answer above compares something else: how a rank "
        "changes from the middle of the range to an end."
    )


def one_untrained(diagnosis: Diagnosis) -> str:
    """ "one untrained network (the first of 5)": which of the controls a single line or column shows."""
    from ntkdiag.diagnosis.controls import controls_of

    count = len(controls_of(diagnosis.refs))
    return f"one untrained network (the first of {count})" if count > 1 else "the untrained network"


def largest_and_smallest_trace(summary: pd.DataFrame) -> str:
    """By what factor the trace of the kernel varies over noise levels."""
    trace = column(summary, "trace")
    if len(trace) < 2 or not (np.isfinite(trace) & (trace > 0)).all():
        return ""
    low, high = int(np.argmin(trace)), int(np.argmax(trace))
    return (
        f"The trace of the kernel, in units of the target, is {number(trace[high] / trace[low], 2)} times as large at "
        f"log-SNR {_log_snr(summary, high)} as at {_log_snr(summary, low)}."
    )


def whether_samples_were_enough(rarefaction: pd.DataFrame) -> str:
    """By how much twice the samples would raise the rank, from the largest subset and the one before it."""
    if rarefaction.empty:
        return ""
    slopes: dict[float, float] = {}
    for place, rows in rarefaction.groupby("log_snr"):
        rows = ordered(rows, "samples")
        count, rank = column(rows, "samples"), column(rows, "effective_rank")
        if len(rows) > 1 and rank[-2] > 0 and count[-1] > count[-2]:
            slope = float(np.log(rank[-1] / rank[-2]) / np.log(count[-1] / count[-2]))
            slopes |= {float(str(place)): slope} if np.isfinite(slope) else {}
    if not slopes:
        return ""
    steepest = max(slopes, key=lambda place: slopes[place])
    gain = 2 ** slopes[steepest] - 1
    if gain < FLAT:
        return "There were enough samples: twice as many would raise the effective rank by less than a tenth everywhere."
    return (
        f"There were too few samples for the effective rank itself: twice as many would raise it by about "
        f"{round(100 * gain)}% at log-SNR {level(steepest)}, where it grows most. Noise levels can still be put in order: "
        "all have the same samples, and more of them would raise a higher rank more than a lower one."
    )


def opposing_gradients(diagnosis: Diagnosis) -> str:
    """The two noise levels whose mean gradients oppose each other most, where the interval of the cosine is below zero."""
    levels, matrix = coupling_matrix(diagnosis, "gradient_cosine")
    if len(levels) < 2 or not np.isfinite(matrix).any():
        return ""
    low, high = (coupling_matrix(diagnosis, f"gradient_cosine{end}")[1] for end in ("_low", "_high"))
    opposing = np.where(high < 0, np.clip(matrix, -1, 1), 0.0)
    row, place = np.unravel_index(int(np.argmin(opposing)), opposing.shape)
    least = opposing[row, place]
    if least >= 0:
        if np.isfinite(matrix).all():
            return "No two noise levels have mean gradients that are known to oppose each other."
        return (
            "No two of the noise levels whose mean gradient exceeds the noise have gradients that are known to oppose "
            "each other."
        )
    first, second = sorted((levels[row], levels[place]))
    return (
        f"The mean gradients that oppose each other most are those at log-SNR {level(first)} and {level(second)} "
        f"(cosine {interval(least, low[row, place], high[row, place], 2)}, 90% interval)."
    )


def _rank(summary: pd.DataFrame, place: int) -> str:
    return interval(*(column(summary, f"effective_rank{end}")[place] for end in ("", "_low", "_high")))


def _log_snr(summary: pd.DataFrame, place: int) -> str:
    return level(column(summary, "log_snr")[place])


def _levels(summary: pd.DataFrame, places: np.ndarray) -> str:
    """ "log-SNR −9 and −7", "every noise level"."""
    if places.all():
        return "every noise level"
    named = [level(value) for value in column(summary, "log_snr")[places]]
    return "log-SNR " + (", ".join(named[:-1]) + " and " + named[-1] if len(named) > 1 else named[0])
