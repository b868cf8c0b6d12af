"""The plain answer: what a measurement says of the network, in short paragraphs for a reader who has not read the paper.

Does the kernel collapse, and at which end; then for each end from how many directions to how many, how much of what is left
is one shared answer, are samples still told apart, was it so before training; and what to do.
"""

from __future__ import annotations

import math

import numpy as np

from ntkdiag.claims.control_band import AS_UNTRAINED, LEARNED, NO_CLAIM
from ntkdiag.claims.ends import CLEAN, ENDS, NOISY, thirds
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.wording.numbers import factor, percent, ratio, short
from ntkdiag.claims.words import CANNOT_SAY, FALLS, RISES
from ntkdiag.spectra.dense.eigen import Array

RANK, PAIRS, SHARE, CENTRED = (
    "effective_rank",
    "participation_ratio_pairs",
    "shared_share",
    "centred_effective_rank",
)
READS = (RANK, PAIRS, SHARE, CENTRED)
_NAMES = {RANK: "rank", CENTRED: "rank without the shared answer"}
_TOWARDS = {NOISY: "noise", CLEAN: "clean data"}
# A part of the trace above this is called most of it.
_MOST = 0.5


def plain_answer(evidence: Evidence) -> str:
    """The paragraphs, from the numbers alone, with an empty line between them.

    Args:
        evidence: With the statistics of `READS`.
    """
    parts = [_collapse(evidence), _what_was_measured(evidence), _never_seen(evidence), _zero_start(evidence)]
    ends = [
        [_rank(end, evidence), _shared(end, evidence), _apart(end, evidence), _before(end, evidence)]
        for end in ENDS
    ]
    return "\n\n".join(" ".join(filter(None, one)) for one in (parts, *ends, [_what_to_do(evidence)]))


def _what_was_measured(evidence: Evidence) -> str:
    levels, target = _levels(evidence), evidence.diagnosis.meta["config"]["target"]
    return (
        "The kernel says how a training step on one sample moves the answers to others; its effective rank counts "
        "the directions in which answers can still be moved. It was measured on this network, which predicts "
        f"{target}, with {evidence.effects.samples} samples at {len(levels)} noise levels, from log-SNR "
        f"{_level(levels[0])} (noisy) to {_level(levels[-1])} (clean)."
    )


def _never_seen(evidence: Evidence) -> str:
    levels = evidence.diagnosis.summary.loc[~evidence.kept, "log_snr"]
    if levels.empty:
        return ""
    named = ", ".join(_level(level) for level in levels)
    return f"The network never saw log-SNR {named} in training, so what was measured there does not enter."


def _zero_start(evidence: Evidence) -> str:
    names = _at_zero_start(evidence)
    if not names:
        return ""
    return (
        f"The network is at its zero start: its last layer ({', '.join(names)}) is zero and nothing else has a "
        "gradient, so that all numbers are those of this layer alone."
    )


def _collapse(evidence: Evidence) -> str:
    """Does the kernel collapse, and at which end."""
    words = {end: evidence.word(RANK, end) for end in ENDS}
    fallen = [end for end in ENDS if words[end] == FALLS]
    if fallen:
        where = "both ends" if len(fallen) == 2 else f"the {fallen[0]} end"
        return f"In this network the kernel collapses at {where} of the range."
    if CANNOT_SAY in words.values():
        return "In this network no collapse is seen, but these samples cannot rule it out."
    return "In this network the kernel does not collapse at either end of the range."


def _rank(end: str, evidence: Evidence) -> str:
    """From how many directions to how many."""
    row, word = evidence.effects[RANK, end], evidence.word(RANK, end)
    levels, middle, there = _third(end, evidence), short(row.middle, 3), short(row.at_end, 3)
    if word == CANNOT_SAY:
        return (
            f"Whether the rank falls towards {_TOWARDS[end]} cannot be said: {middle} in the middle third, {there} in "
            f"the {end} third ({levels}), but {_doubt(end, RANK, evidence)}."
        )
    if word in (FALLS, RISES):
        return (
            f"Towards {_TOWARDS[end]} the effective rank {word} from {middle} in the middle third of the range to "
            f"{there} in the {end} third ({levels}), of at most {evidence.effects.samples}. Ranks depend on the number "
            "of samples, so read their order and not their ratio; the pair participation ratio, which does not, "
            f"changes by {factor(evidence.effects[PAIRS, end])}."
        )
    return (
        f"Towards {_TOWARDS[end]} the effective rank stays within 10%: {middle} in the middle third, {there} in the "
        f"{end} third ({levels})."
    )


def _shared(end: str, evidence: Evidence) -> str:
    """How much of what is left is one shared answer."""
    row = evidence.effects[SHARE, end]
    if evidence.word(RANK, end) != FALLS or not math.isfinite(row.at_end):
        return ""
    start = "What is left there is mostly" if row.at_end >= _MOST else "Part of what is left there is"
    return (
        f"{start} one shared answer: {percent(row.at_end)} of the kernel moves all samples alike "
        f"({percent(row.middle)} in the middle)."
    )


def _apart(end: str, evidence: Evidence) -> str:
    """Are samples still told apart, without the shared answer; said where either rank falls."""
    row, word = evidence.effects[CENTRED, end], evidence.word(CENTRED, end)
    if FALLS not in (word, evidence.word(RANK, end)):
        return ""
    there, middle = short(row.at_end, 3), short(row.middle, 3)
    numbers = f"Without the shared answer there are {there} directions there, {middle} in the middle"
    if word == FALLS:
        return f"{numbers}: samples are told apart in fewer directions."
    if word == CANNOT_SAY:
        return f"{numbers}; whether that is fewer cannot be said: {_doubt(end, CENTRED, evidence)}."
    return f"{numbers}: samples are still told apart, and none of these directions is lost."


def _before(end: str, evidence: Evidence) -> str:
    """Was it so before training; of each rank that has a definite change at this end."""
    changed = [name for name in (RANK, CENTRED) if evidence.word(name, end) in (FALLS, RISES)]
    if not changed:
        return ""
    if not evidence.controls:
        return "Whether it was so before training was not tested, since no fresh network was measured."
    return " ".join(_against_fresh(name, end, evidence) for name in changed)


def _against_fresh(name: str, end: str, evidence: Evidence) -> str:
    band, row = evidence.bands[name, end], evidence.effects[name, end]
    if not math.isfinite(band.mean):
        return f"The {_NAMES[name]} of fresh networks is not defined there, so training was not tested."
    own, mean, low, high = (_times(value) for value in (row.effect, band.mean, band.high, band.low))
    fresh = f"in fresh networks on the same samples it changes by {mean}"
    if math.isnan(band.low):
        return f"The {_NAMES[name]} changes by {own}; {fresh} (one network: how others differ is not known)."
    numbers = (
        f"the {_NAMES[name]} changes by {own}, {fresh} ({band.controls} networks; 95% within {low} to {high})"
    )
    return {
        LEARNED: f"Training did this: {numbers}.",
        AS_UNTRAINED: f"It was so before training: {numbers}.",
        NO_CLAIM: f"Nothing is claimed about training, since fresh networks change more: {numbers}.",
    }[band.learned]


def _what_to_do(evidence: Evidence) -> str:
    """Which weights follow from it, or none."""
    if _at_zero_start(evidence):
        return "What to do: measure again after some training; nothing follows for the weights."
    fallen, lost = ([end for end in ENDS if evidence.word(name, end) == FALLS] for name in (RANK, CENTRED))
    learned = [end for end in lost if evidence.bands[CENTRED, end].learned == LEARNED]
    if learned:
        return (
            "What to do: training lost directions that tell samples apart at the "
            f"{_and(learned)} end, where {_recoverable(learned, evidence)}; try weights that follow the recoverable "
            "share ('ntkdiag weights --score bayes'), and keep them only if the held-out loss there falls."
        )
    more = "What to do: measure with more samples and probes ('--level thorough') before changing the weights"
    unsure = [end for end in fallen if evidence.word(CENTRED, end) == CANNOT_SAY]
    if unsure:
        return f"{more}; whether samples are still told apart as well is open at the {_and(unsure)} end."
    if fallen and not lost:
        return (
            "What to do: this calls for no other loss weights. Only the shared answer grew, where "
            f"{_recoverable(fallen, evidence)}; weights that move effort away from there trade loss there for loss "
            "elsewhere."
        )
    if lost:
        return (
            f"What to do: nothing follows for the weights. At the {_and(lost)} end samples are told apart in fewer "
            "directions, but that training did this is not shown."
        )
    if any(evidence.word(RANK, end) == CANNOT_SAY for end in ENDS):
        return f"{more}; whether the kernel collapses is open."
    return "What to do: keep the weights; nothing here calls for others."


def _recoverable(ends: list[str], evidence: Evidence) -> str:
    """How much of the target the noisy input determines at some ends."""
    summary = evidence.kept_summary
    if "bayes_share" not in summary:
        return "it is not known how much of the target can be recovered"
    parts = thirds(_levels(evidence))
    shares = summary["bayes_share"].to_numpy(dtype=float)
    exact = "excess" in summary and bool(np.isfinite(summary["excess"].to_numpy(dtype=float)).any())
    said = _and([percent(float(shares[parts[end]].mean())) for end in ends])
    return f"{'' if exact else 'at least '}{said} of the target can be recovered from the input"


def _doubt(end: str, name: str, evidence: Evidence) -> str:
    row = evidence.effects[name, end]
    return row.note or f"the limits of the ratio are wide, {factor(row)}"


def _at_zero_start(evidence: Evidence) -> list[str]:
    return list(evidence.diagnosis.meta.get("network", {}).get("zero_start") or [])


def _levels(evidence: Evidence) -> Array:
    levels: Array = evidence.kept_summary["log_snr"].to_numpy(dtype=float)
    return levels


def _third(end: str, evidence: Evidence) -> str:
    levels = _levels(evidence)
    inside = levels[thirds(levels)[end]]
    low, high = _level(inside[0]), _level(inside[-1])
    return f"log-SNR {low}" if low == high else f"log-SNR {low} to {high}"


def _level(value: float) -> str:
    return f"{round(float(value), 1) + 0.0:g}".replace("-", "−")


def _times(effect: float) -> str:
    """End divided by middle."""
    return f"×{ratio(math.exp(-effect))}"


def _and(parts: list[str]) -> str:
    return " and ".join(parts)
