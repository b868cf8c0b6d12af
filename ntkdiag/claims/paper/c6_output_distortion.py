"""C6, distortion: the network's outputs lose structure that the best possible prediction keeps.

Source: arXiv 2605.10790, "outputs distort structurally"; what the best prediction loses as well is not the network's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ntkdiag.claims.answer import IN_PART, Answer, untestable
from ntkdiag.claims.distortion import distortion
from ntkdiag.claims.ends import CLEAN, ENDS, NOISY
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import claim
from ntkdiag.claims.wording.numbers import ratio
from ntkdiag.claims.words import CANNOT_SAY
from ntkdiag.diagnosis.outputs import BEST, DATA, OUTPUT, SOURCE


@claim("C6", "Outputs lose structure that the best possible prediction keeps.")
def outputs_distort(evidence: Evidence) -> Answer:
    """Rank, alignment and neighbours of the predicted x0 beside those of E[x0 | x], at both ends."""
    grams = evidence.diagnosis.grams
    if not {OUTPUT, BEST, DATA} <= grams.keys():
        return untestable("the best possible prediction of these samples is not known")
    levels = evidence.diagnosis.summary["log_snr"].to_numpy(dtype=float)[evidence.kept]
    found = distortion(
        levels, grams[OUTPUT].numpy()[evidence.kept], grams[BEST].numpy()[evidence.kept], grams[DATA].numpy()
    )
    words, said = {}, []
    for end in ENDS:
        rows = found.ends[found.ends["end"] == end].to_dict("records")
        kinds = {row["word"] for row in rows}
        words[end] = kinds.pop() if len(kinds) == 1 else CANNOT_SAY if CANNOT_SAY in kinds else IN_PART
        said.append(f"At the {end} end: {', '.join(_said(row) for row in rows)}.")
    source = evidence.diagnosis.meta.get(SOURCE, "")
    return Answer(
        words[NOISY],
        words[CLEAN],
        f"What the network keeps of the structure that the best prediction has ({source}). {' '.join(said)}",
    )


def _said(row: Mapping[Any, Any]) -> str:
    value, low, high = (math.exp(-row[name]) for name in ("effect", "high", "low"))
    limits = "" if math.isnan(row["low"]) else f" [{ratio(low)}, {ratio(high)}]"
    amount = f"×{ratio(value)}" if math.isfinite(row["effect"]) else "–"
    return f"{row['structure']} {amount}{limits} ({row['word']})"
