"""What the measurement says: the plain answer first, then a card for each claim with its words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ntkdiag.report.page.markup import Html, element
from ntkdiag.report.tables import text

if TYPE_CHECKING:
    from ntkdiag.claims import Verification

_CARDS = (
    "Claims C1 to C6 are those of arXiv 2605.10790, which says that a kernel degrades where its target cannot be recovered. "
    "Each card has a word for what this network does, and the numbers. In C1 and C2 they are an end of the range divided by "
    "its middle, with limits in brackets that hold together ({method}); in C4 and C5 each bracket is a 90% interval by "
    "itself; in C6 they hold together within the card. Fresh networks are the same network with new random weights, before "
    "any training; learned means outside what 95% of them would show."
)


def verdict_cards(verdicts: Verification | None) -> Html:
    """The paragraphs, then a card a claim; a sentence where nothing was answered.

    Args:
        verdicts: What `ntkdiag.verify` returns, or None.
    """
    if verdicts is None:
        return element(
            "p",
            "No claims were answered from this measurement; ",
            element("code", "ntkdiag verify"),
            " answers them.",
        )
    cards = [_card(row) for row in verdicts.answers.to_dict("records")]
    first, *others = verdicts.text.split("\n\n")
    answer, stop, explained = first.partition(". ")
    return element(
        "div",
        element("p", answer + stop.rstrip(), class_="answer"),
        *([element("p", explained)] if explained else []),
        *(element("p", part) for part in others),
        element("p", _CARDS.replace("{method}", verdicts.method), class_="note"),
        element("div", *cards, class_="verdicts"),
    )


def _card(row: Mapping[Any, Any]) -> Html:
    noisy, clean = text(row.get("noisy")), text(row.get("clean"))
    words = noisy if noisy == clean else f"{noisy} at the noisy end, {clean} at the clean end"
    return element(
        "article",
        element("span", words, class_="badge"),
        element("span", text(row.get("claim")), class_="claim"),
        element("p", text(row.get("statement")), class_="statement"),
        element("p", text(row.get("text")), class_="numbers"),
        class_="verdict inconclusive",
    )
