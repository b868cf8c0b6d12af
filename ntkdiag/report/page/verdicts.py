"""Claims as cards: the verdict, the claim, the numbers behind it, and remarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ntkdiag.report.formatting import MISSING, interval, number, p_value
from ntkdiag.report.page.markup import Html, element
from ntkdiag.report.tables import text

if TYPE_CHECKING:
    import pandas as pd

# A sign besides the colour, for those who see no colours and for paper.
_SIGNS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?"}


def verdict_cards(verdicts: pd.DataFrame | None) -> Html:
    """A card a claim, in the order of the table; a sentence where no claim was tested.

    Args:
        verdicts: Columns claim, statement, verdict, effect, low, high, p_value, p_holm, test, note; or None.
    """
    if verdicts is None or verdicts.empty:
        return element(
            "p",
            "No claims were tested on this measurement; ",
            element("code", "ntkdiag verify"),
            " tests them.",
        )
    records = verdicts.to_dict("records")
    counts = [f"{sum(row['verdict'] == name for row in records)} {name}" for name in _SIGNS]
    summary = f"Of {len(records)} claims about representation degradation: {', '.join(counts)}."
    return element(
        "div",
        element("p", summary, class_="lead"),
        element("div", *(_card(row) for row in records), class_="verdicts"),
    )


def _card(row: Mapping[Any, Any]) -> Html:
    verdict = text(row.get("verdict"))
    known = verdict if verdict in _SIGNS else "inconclusive"
    lines = [
        element("p", text(row.get("statement")), class_="statement"),
        element("p", _numbers(row), class_="numbers"),
    ]
    if text(row.get("note")):
        lines.append(element("p", text(row.get("note")), class_="note"))
    head = element("span", f"{_SIGNS[known]} {verdict}", class_="badge")
    claim = element("span", text(row.get("claim")), class_="claim")
    return element("article", head, claim, *lines, class_=f"verdict {known}")


def _numbers(row: Mapping[Any, Any]) -> str:
    """Effect with its interval and threshold, corrected p-value, test."""
    effect = interval(row.get("effect"), row.get("low"), row.get("high"), digits=2)
    if effect == MISSING:
        return " ".join(filter(None, ("This measurement cannot test the claim.", text(row.get("test")))))
    threshold = number(row.get("threshold"), digits=2)
    parts = [f"Effect {effect}" + ("" if threshold == MISSING else f", threshold {threshold}")]
    corrected = p_value(row.get("p_holm"))
    if corrected != MISSING:
        parts.append(
            f"p {corrected}"
            if corrected.startswith("<")
            else f"p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{corrected}"
        )
        parts[-1] += " after correction for all claims"
    if text(row.get("test")):
        parts.append(text(row.get("test")))
    return "; ".join(parts) + "."
