"""The answer about a network as text of 80 columns: the paragraph, effects, claims, and what the rank runs along with."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from ntkdiag.claims.wording.numbers import ratio, short
from ntkdiag.cli.output.tables import WIDTH, table_width, wrapped
from ntkdiag.report.tables import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ntkdiag.claims import RecipeVerification, Verification

_SHORT = {
    "participation_ratio_pairs": "pair PR",
    "shared_share": "shared share",
    "top_eigenvalue": "top eigenvalue",
    "effective_rank": "effective rank",
}
_TRAINING = {"as untrained": "untrained", "not tested": "–"}
_CENTRED = "centred_"


def verification_text(found: Verification, name: str = "") -> str:
    """Everything that is printed of one network.

    Args:
        found: The answer.
        name: What to call the network above it, where there are several.
    """
    parts = [f"{name}:"] if name else []
    document = found.document()
    effects = effects_text(document["claims"], found.method)
    parts += [wrapped(found.text), effects, claims_text(document["answers"]), rulers_text(document)]
    return "\n\n".join(filter(None, parts)) + "\n"


def recipe_text(found: RecipeVerification) -> str:
    """Everything that is printed of a recipe: the paragraphs, and a row for each claim and end."""
    document = found.document()
    parts = [wrapped(found.text)]
    for recipe in dict.fromkeys(row["recipe"] for row in document["claims"]):
        rows = tuple(_recipe_cells(row) for row in document["claims"] if row["recipe"] == recipe)
        parts.append(
            Table((recipe, "end", "end/middle [90%]", "p", "verdict", "training"), rows).as_text(
                table_width()
            )
        )
    if document["slopes"]:
        rows = tuple(_slope_cells(row) for row in document["slopes"])
        parts.append(Table(("ln of", "on ln of", "slope [90%]", "p", "verdict"), rows).as_text(table_width()))
    legend = (
        "Each row shows the statistic that falls least of those that the claim needs; intervals are over seeds. p: of the "
        "verdict, corrected by Holm's method; where it is inconclusive, the smallest of the three. training: learned, where "
        "the change lies outside what 95% of fresh networks show; untrained, inside; no claim, where it has the opposite "
        "sign once theirs is subtracted."
    )
    return "\n\n".join([*parts, wrapped(legend)]) + "\n"


def effects_text(claims: Sequence[Mapping[str, Any]], method: str) -> str:
    """A row for each statistic at each end, and what its columns mean.

    Args:
        claims, method: As in `Verification.document`.
    """
    parts = []
    for end in dict.fromkeys(row["end"] for row in claims):
        rows = [row for row in claims if row["end"] == end]
        whole = [row for row in rows if not row["statistic"].startswith(_CENTRED)]
        centred = [row for row in rows if row["statistic"].startswith(_CENTRED)]
        cells = [_cells(row) for row in whole]
        if centred:
            cells += [("without shared:", "", "", "", ""), *(_cells(row) for row in centred)]
        table = Table((f"{end} end", "middle → end", "end/middle [limits]", "word", "training"), tuple(cells))
        parts.append(table.as_text(table_width()))
    legend = (
        "Words: falls or rises by more than a tenth, absent (within a tenth), or cannot say. Limits hold for all rows "
        f"together ({method}). A rank of few samples is too low, the more so the higher it is, so a ratio of ranks "
        "understates a change; that of the trace or of the pair PR (pair participation ratio) does not. 'without shared': "
        "of the kernel without the answer that all samples share. training: learned, where the change lies outside what 95% "
        "of fresh networks show; untrained, inside; no claim, where it has the opposite sign once theirs is subtracted."
    )
    return "\n\n".join([*parts, wrapped(legend)])


def claims_text(answers: Sequence[Mapping[str, Any]]) -> str:
    """The claims of the paper, and others that are registered, each with its answer."""
    lines = []
    for row in answers:
        words = (
            row["noisy"]
            if row["noisy"] == row["clean"]
            else f"{row['noisy']} (noisy), {row['clean']} (clean)"
        )
        lines.append(f"{row['claim']}  {words}")
        for text in (row["statement"], row["text"]):
            lines += textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def rulers_text(document: Mapping[str, Any]) -> str:
    """What the effective rank runs along with over log-SNR, from `Verification.document`."""
    rows = [row for row in document["rulers"] if row["statistic"] == "effective_rank"]
    if not rows:
        return ""
    rank = {row["end"]: row["word"] for row in document["claims"] if row["statistic"] == "effective_rank"}
    cells = [
        (
            row["ruler"],
            _interval(*(_number(row[part]) for part in ("tau", "low", "high"))),
            row["noisy"],
            row["clean"],
        )
        for row in rows
    ]
    cells.append(("the rank itself", "", rank["noisy"], rank["clean"]))
    table = Table(("ruler", "τ with the rank [90%]", "noisy end", "clean end"), tuple(cells))
    notes = [f"{row['ruler']}: {row['note']}" for row in rows if row["note"]]
    return "\n\n".join(
        [
            table.as_text(table_width()),
            wrapped(
                "What the rank runs along with, as a description: what each ruler would have it do at the ends, and what "
                "it does. " + "; ".join(notes) + ("." if notes else "")
            ),
        ]
    )


def _cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    name = row["statistic"].removeprefix(_CENTRED)
    label = _SHORT.get(name, name.replace("_", " "))
    change = f"{short(row['middle'], 3)} → {short(row['at_end'], 3)}"
    ends = [math.exp(-_number(row[part])) for part in ("effect", "high", "low")]
    return label, change, _interval(*ends), row["word"], _TRAINING.get(row["learned"], row["learned"])


def _recipe_cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    claim = {"rank of the centred kernel": "centred rank"}.get(row["claim"], row["claim"])
    ends = [math.exp(-_number(row[part])) for part in ("effect", "high", "low")]
    learned = _TRAINING.get(row["learned"], row["learned"])
    return claim, row["end"], _interval(*ends), _p(row["p"]), row["verdict"], learned


def _slope_cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    name = row["statistic"].replace("_", " ")
    slope = f"{row['slope']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    return name, row["follows"], _minus(slope), _p(row["p"]), row["verdict"]


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _number(value: float | None) -> float:
    """A number of the document, in which one that does not exist is null."""
    return math.nan if value is None else value


def _interval(value: float, low: float, high: float) -> str:
    if math.isnan(low) or math.isnan(high):
        return _minus(ratio(value))
    return _minus(f"{ratio(value)} [{ratio(low)}, {ratio(high)}]")


def _minus(text: str) -> str:
    return text.replace("-", "−")
