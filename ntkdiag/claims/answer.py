"""The answer to one claim about one network: a word for each end of the log-SNR range, and a text with the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ntkdiag.claims.control_band import AS_UNTRAINED, LEARNED, NO_CLAIM, NOT_TESTED
from ntkdiag.claims.description.recoverable import beside_recoverability
from ntkdiag.claims.ends import CLEAN, ENDS, NOISY
from ntkdiag.claims.wording.numbers import factor, named
from ntkdiag.claims.words import CANNOT_SAY

if TYPE_CHECKING:
    from ntkdiag.claims.evidence import Evidence

IN_PART, DESCRIBED, NOT_TESTABLE = "in part", "described", "not testable"
HOLDS, DOES_NOT_HOLD = "holds", "does not hold"
# What follows the word of an effect, by what fresh networks do.
_BESIDE_FRESH = {
    LEARNED: ", learned in training",
    AS_UNTRAINED: ", within the range of fresh networks",
    NO_CLAIM: ", fresh networks change more",
    NOT_TESTED: "",
}


@dataclass(frozen=True)
class Answer:
    """What a measurement says to a claim.

    Attributes:
        noisy, clean: At each end of the log-SNR range: falls, rises, absent or cannot say; "in part" where the statistics of
            the claim do different things; "holds" or "does not hold" for claims about the whole range; "described" or "not
            testable" for claims that one network cannot decide.
        text: One or two sentences with the numbers.

    Example:
        >>> from ntkdiag.claims import Answer
        >>> Answer(noisy="falls", clean="absent", text="The rank falls where the input is noisiest.").noisy
        'falls'
    """

    noisy: str
    clean: str
    text: str


def falls(statistics: Sequence[str] | str, evidence: Evidence) -> Answer:
    """Whether statistics of the kernel fall towards the ends of the log-SNR range.

    Args:
        statistics: One or more of those that the claim reads.
        evidence: What the claim is given.

    Returns:
        An answer whose words are those that all statistics share.

    Example:
        >>> from ntkdiag.claims import falls
        >>> from ntkdiag.claims.evidence import gather
        >>> answer = falls("trace", gather(diagnosis, ["trace"]))
        >>> answer.text.split(":")[0]
        'Trace'
    """
    names = [statistics] if isinstance(statistics, str) else list(statistics)
    words = {end: _shared([evidence.word(name, end) for name in names]) for end in ENDS}
    text = " ".join([*(_sentence(name, evidence) for name in names), beside_recoverability(words, evidence)])
    return Answer(words[NOISY], words[CLEAN], text)


def judged(word: str, text: str) -> Answer:
    """The answer to a claim about the whole range."""
    return Answer(word, word, text)


def described(text: str) -> Answer:
    """The answer to a claim of which one network shows numbers, without a word for or against it.

    Example:
        >>> from ntkdiag.claims import described
        >>> described("The strongest direction takes 40% of the kernel.").clean
        'described'
    """
    return Answer(DESCRIBED, DESCRIBED, text)


def untestable(why: str) -> Answer:
    """The answer to a claim that no measurement of this network could decide, for the reason given.

    Example:
        >>> from ntkdiag.claims import untestable
        >>> untestable("the posterior of the data is not known").text
        'Not testable for one network: the posterior of the data is not known.'
    """
    return Answer(NOT_TESTABLE, NOT_TESTABLE, f"Not testable for one network: {why}.")


def _shared(words: Sequence[str]) -> str:
    if len(set(words)) == 1:
        return words[0]
    return CANNOT_SAY if CANNOT_SAY in words else IN_PART


def _sentence(name: str, evidence: Evidence) -> str:
    """ "Trace: ×0.31 [0.22, 0.44] at the noisy end (falls, learned in training), ×1.1 … at the clean end (absent)." """
    parts = []
    for end in ENDS:
        row, band = evidence.effects[name, end], evidence.bands[name, end]
        parts.append(f"{factor(row)} at the {end} end ({row.word}{_BESIDE_FRESH[band.learned]})")
    label = named(name)
    return f"{label[0].upper()}{label[1:]}: {', '.join(parts)}."
