"""C5, domination: the noise levels with the highest floor take most of the loss and of the gradient.

Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.answer import DOES_NOT_HOLD, HOLDS, Answer, judged, untestable
from ntkdiag.claims.description.floor_shares import floor_shares
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim
from ntkdiag.claims.wording.numbers import percent
from ntkdiag.claims.words import CANNOT_SAY

# Most of something is more than this share of it.
MOST = 0.5


@claim("C5", "The noise levels with the highest floor take most of the loss and of the gradient.")
def floor_dominates(evidence: Evidence) -> Answer:
    """The third of the buckets with the highest floor, counted as often as training draws them."""
    table = floor_shares(evidence.diagnosis, evidence.kept)
    if table.empty:
        return untestable("no floor of the loss is known, exactly or as a bound, in every bucket")
    rows = table.to_dict("records")
    said = [
        f"{percent(row['share'])} [{percent(row['low'])}, {percent(row['high'])}] of the {row['quantity']}"
        for row in rows
    ]
    lows, highs = ([row[end] for row in rows] for end in ("low", "high"))
    word, meaning = CANNOT_SAY, "whether that is most of both is not known"
    if min(lows) > MOST:
        word, meaning = HOLDS, "which is most of both"
    elif min(highs) < MOST:
        word, meaning = DOES_NOT_HOLD, f"which is not most of {'either' if max(highs) < MOST else 'both'}"
    return judged(
        word,
        f"The third of the noise levels with the highest floor (log-SNR {rows[0]['levels'].replace('-', '−')}), the part of "
        f"the loss that no training removes, gets {percent(rows[0]['draws'])} of training's draws and takes "
        f"{' and '.join(said)}, {meaning}. Gradient energy is the mean squared length of a sample's gradient.",
    )
