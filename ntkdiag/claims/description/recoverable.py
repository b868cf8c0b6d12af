"""How much of the target can be recovered in each third of the range, and which end is the less recoverable one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntkdiag.claims.ends import ENDS, thirds
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.wording.numbers import level, percent
from ntkdiag.claims.words import FALLS, RISES, word
from ntkdiag.diagnosis.bayes import OWN_LOSS

LESS, MORE, ALIKE = (
    "less recoverable than the middle",
    "more recoverable than the middle",
    "about as recoverable as the middle",
)


@dataclass(frozen=True)
class Recoverable:
    """Recoverable share of the target, as means over the thirds of the range.

    Attributes:
        shares: "noisy", "middle", "clean" → mean share in [0, 1].
        exact: Whether they are exact; else they are lower bounds.
        own: Log-SNRs at which the bound comes from the network's own loss.
    """

    shares: dict[str, float]
    exact: bool
    own: tuple[float, ...] = ()

    def at(self, part: str) -> str:
        """ "at least 43%"."""
        return f"{'' if self.exact else 'at least '}{percent(self.shares[part])}"

    def against_middle(self, end: str) -> str:
        """Whether an end is less or more recoverable than the middle, by more than the margin that effects are judged by."""
        middle, there = self.shares["middle"], self.shares[end]
        if middle <= 0 or there <= 0:
            return ALIKE if middle == there else LESS if there < middle else MORE
        effect = float(np.log(middle / there))
        return {FALLS: LESS, RISES: MORE}.get(word(effect, effect), ALIKE)


def recoverable(evidence: Evidence) -> Recoverable | None:
    """The shares of a diagnosis; None where they are not known in every bucket."""
    summary = evidence.kept_summary
    if "bayes_share" not in summary:
        return None
    shares = summary["bayes_share"].to_numpy(dtype=float)
    if not np.isfinite(shares).all():
        return None
    exact = "excess" in summary and bool(np.isfinite(summary["excess"].to_numpy(dtype=float)).any())
    parts = thirds(summary["log_snr"].to_numpy(dtype=float))
    means = {name: float(shares[part].mean()) for name, part in parts.items()}
    return Recoverable(means, exact, () if exact else _own_bounds(evidence))


def _own_bounds(evidence: Evidence) -> tuple[float, ...]:
    bounds = evidence.diagnosis.meta.get("bayes_bounds") or []
    rows = zip(evidence.diagnosis.summary["log_snr"], bounds, evidence.kept, strict=False)
    return tuple(sorted(float(place) for place, source, kept in rows if kept and source == OWN_LOSS))


def beside_recoverability(words: dict[str, str], evidence: Evidence) -> str:
    """What falls and rises at the ends mean for a claim that something falls where the target is less recoverable.

    Args:
        words: End → falls, rises, absent, cannot say or in part.
        evidence: What the claim is given.
    """
    found = recoverable(evidence)
    if found is None:
        return "Which end is the less recoverable one is not known."
    said = []
    for end in ENDS:
        where = found.against_middle(end)
        numbers = (
            f"the {end} end is {where} ({found.at(end)} of the target; {found.at('middle')} in the middle)"
        )
        said.append(f"{numbers}{_meaning(words[end], where)}")
    if found.exact:
        return f"{said[0][0].upper()}{said[0][1:]}; {said[1]}."
    text = f"By the bounds that are known, {said[0]}; {said[1]}."
    if not found.own:
        return text
    return (
        f"{text} The bounds at log-SNR {', '.join(map(level, found.own))} come from this network's own loss on held-out "
        "samples, so they are not independent of its kernel."
    )


def _meaning(said: str, where: str) -> str:
    if where == LESS:
        return {FALLS: ", which is as claimed", RISES: ", and a rise there is against the claim"}.get(
            said, ""
        )
    return {FALLS: ", so a fall there is not what is claimed"}.get(said, "")
