"""The plain answer: what a measurement says of the network, in short paragraphs for a reader who has not read the paper.

Does the kernel collapse, and at which end; then for each end from how many directions to how many, how much of what is left
is one shared answer, are samples still told apart, was it so before training; and what to do.
"""

from __future__ import annotations

import math

from ntkdiag.claims.control_band import AS_UNTRAINED, LEARNED, NO_CLAIM
from ntkdiag.claims.description.recoverable import recoverable
from ntkdiag.claims.effects import MIN_PROBES
from ntkdiag.claims.ends import CLEAN, ENDS, NOISY, thirds
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.wording.numbers import factor, level, percent, ratio, short
from ntkdiag.claims.words import CANNOT_SAY, FALLS, RISES, THRESHOLD
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
# A rank without the shared answer that is larger by this factor shows what the shared answer hides.
_HIDDEN = 1.5


def plain_answer(evidence: Evidence) -> str:
    """The paragraphs, from the numbers alone, with an empty line between them.

    Args:
        evidence: With the statistics of `READS`.
    """
    parts = [
        _collapse(evidence),
        _what_was_measured(evidence),
        _own_samples(evidence),
        _never_seen(evidence),
        _zero_start(evidence),
    ]
    ends = [
        [_rank(end, evidence), _shared(end, evidence), _apart(end, evidence), _before(end, evidence)]
        for end in ENDS
    ]
    return "\n\n".join(" ".join(filter(None, one)) for one in (parts, *ends, [_what_to_do(evidence)]))


def _what_was_measured(evidence: Evidence) -> str:
    levels, target = _levels(evidence), evidence.diagnosis.meta["config"]["target"]
    found = evidence.effects
    brackets = f" Brackets are {found.level:.0%} limits that hold for all comparisons together."
    return (
        "The kernel says how a training step on one sample moves the network's answers to others. A direction is a way "
        "to change the answers to all samples at once, and the effective rank counts the directions in which training "
        "can still move them; a collapse is a fall of this count. The kernel was measured on this network, which "
        f"predicts {target}, with {found.samples} samples at {len(levels)} noise levels, from log-SNR "
        f"{level(levels[0])} (noisy) to {level(levels[-1])} (clean). The noisy third ({_third(NOISY, evidence)}) and the "
        f"clean third ({_third(CLEAN, evidence)}) are compared with the middle third ({_third('middle', evidence)}), "
        f"each by its geometric mean.{brackets if found.probes == 0 or found.probes >= MIN_PROBES else ''}"
    )


def _own_samples(evidence: Evidence) -> str:
    """What samples of the network itself in place of data weaken."""
    if not evidence.diagnosis.meta.get("data", {}).get("from_network"):
        return ""
    return (
        "The samples were drawn from the network itself, not from its data: the answer holds where its own samples lie. "
        "What it fails to draw is not seen, its loss is not that on data, and what can be recovered is that "
        "of its own samples."
    )


def _never_seen(evidence: Evidence) -> str:
    levels = evidence.diagnosis.summary.loc[~evidence.kept, "log_snr"]
    if levels.empty:
        return ""
    named = ", ".join(level(one) for one in levels)
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
    middle, there = short(row.middle, 3), short(row.at_end, 3)
    if word == CANNOT_SAY:
        return (
            f"Whether the effective rank falls towards {_TOWARDS[end]} cannot be said: it is {middle} in the middle third "
            f"and {there} in the {end} third, and {_doubt(end, RANK, evidence)}."
        )
    if word in (FALLS, RISES):
        return (
            f"Towards {_TOWARDS[end]} the effective rank {word} from {middle} in the middle third to {there} in the {end} "
            f"third. A rank from {evidence.effects.samples} samples is too low, the more so the higher it is: the two show "
            f"that it {word}, and their ratio understates by how much. The pair participation ratio, another count of "
            "directions, in which the strong ones weigh more, has no such bias: it changes by "
            f"{factor(evidence.effects[PAIRS, end])}."
        )
    return (
        f"Towards {_TOWARDS[end]} the effective rank stays within 10%: {middle} in the middle third, {there} in the "
        f"{end} third."
    )


def _shared(end: str, evidence: Evidence) -> str:
    """How much of what is left is one shared answer."""
    row = evidence.effects[SHARE, end]
    if evidence.word(RANK, end) != FALLS or not math.isfinite(row.at_end):
        return ""
    start = "What is left there is mostly" if row.at_end >= _MOST else "Part of what is left there is"
    hidden = evidence.effects[CENTRED, end].at_end > _HIDDEN * evidence.effects[RANK, end].at_end
    return (
        f"{start} one shared answer: {percent(row.at_end)} of the kernel moves all samples alike "
        f"({percent(row.middle)} in the middle)."
        + (
            " It is one large eigenvalue, beside which the rank hardly counts the many small ones."
            if hidden
            else ""
        )
    )


def _apart(end: str, evidence: Evidence) -> str:
    """Does the kernel still distinguish samples, without the shared answer; said where either rank falls."""
    row, word = evidence.effects[CENTRED, end], evidence.word(CENTRED, end)
    if FALLS not in (word, evidence.word(RANK, end)):
        return ""
    there, middle = short(row.at_end, 3), short(row.middle, 3)
    numbers = f"Without the shared answer the rank is {there} there and {middle} in the middle"
    if word == FALLS:
        return f"{numbers}, so samples are told apart in fewer directions."
    if word == CANNOT_SAY:
        return f"{numbers}. Whether that is fewer cannot be said: {_doubt(end, CENTRED, evidence)}."
    return f"{numbers}, so samples are still told apart, and none of these directions is lost."


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
    numbers = f"it changes by {own}, while in fresh networks on the same samples it changes by {mean}"
    rank, verb = f"the {_NAMES[name]}", {FALLS: "fall", RISES: "rise"}[row.word]
    if math.isnan(band.low):
        return f"As for {rank}, {numbers} (one network: how others differ is not known)."
    said = {
        LEARNED: f"Training made {rank} {verb}",
        AS_UNTRAINED: f"That {rank} {row.word} was so before training",
        NO_CLAIM: f"That training made {rank} {verb} is not claimed, since it {row.word} even more in fresh networks",
    }[band.learned]
    return f"{said}: {numbers} ({band.controls} networks; 95% within {low} to {high})."


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
        return (
            f"{more}. That the kernel collapses is known; whether samples are still told apart equally well at the "
            f"{_and(unsure)} end is not, and only a loss of that would call for other weights."
        )
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
    found = recoverable(evidence)
    if found is None:
        return "it is not known how much of the target can be recovered"
    return f"{_and([found.at(end) for end in ends])} of the target can be recovered from the input"


def _doubt(end: str, name: str, evidence: Evidence) -> str:
    row = evidence.effects[name, end]
    if row.note:
        return row.note
    fall, rise = row.high > THRESHOLD, row.low < -THRESHOLD
    what = "a fall or a rise" if fall and rise else "a fall" if fall else "a rise"
    return (
        f"the limits of their ratio, {factor(row)}, leave open whether there is {what} by more than a tenth"
    )


def _at_zero_start(evidence: Evidence) -> list[str]:
    return list(evidence.diagnosis.meta.get("network", {}).get("zero_start") or [])


def _levels(evidence: Evidence) -> Array:
    levels: Array = evidence.kept_summary["log_snr"].to_numpy(dtype=float)
    return levels


def _third(end: str, evidence: Evidence) -> str:
    levels = _levels(evidence)
    inside = levels[thirds(levels)[end]]
    low, high = level(inside[0]), level(inside[-1])
    return f"log-SNR {low}" if low == high else f"log-SNR {low} to {high}"


def _times(effect: float) -> str:
    """End divided by middle."""
    return f"×{ratio(math.exp(-effect))}"


def _and(parts: list[str]) -> str:
    return " and ".join(parts)
