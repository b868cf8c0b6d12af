"""C5, domination: the noise levels with the highest floor take most of the loss and of the gradient.

Source: arXiv 2605.10790.
"""

from __future__ import annotations

from ntkdiag.claims.answer import Answer, described, untestable
from ntkdiag.claims.description.floor_shares import floor_shares
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim
from ntkdiag.claims.wording.numbers import percent


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
    return described(
        f"The third of the noise levels with the highest floor (log-SNR {rows[0]['levels'].replace('-', '−')}) gets "
        f"{percent(rows[0]['draws'])} of training's draws and takes {' and '.join(said)}."
    )
