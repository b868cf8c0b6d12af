"""Verdicts on a recipe in plain words, a paragraph a recipe, then what the recipes follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ntkdiag.claims.control_band import AS_UNTRAINED, LEARNED, NO_CLAIM
from ntkdiag.claims.ends import CLEAN, ENDS, NOISY
from ntkdiag.claims.recipe.end_claims import CENTRED, RANK, SHARE, STRENGTH, SeedEffects
from ntkdiag.claims.recipe.following import SHARE as RECOVERABLE
from ntkdiag.claims.recipe.groups import Recipe
from ntkdiag.claims.recipe.seed_tests import ABSENT, CONTRADICTED, INCONCLUSIVE, SUPPORTED
from ntkdiag.claims.wording.numbers import named, percent, ratio, short

# (claim, end) → row of `RecipeVerification.claims`.
Rows = Mapping[tuple[str, str], Mapping[Any, Any]]
_TOWARDS = {NOISY: "noise", CLEAN: "clean data"}
# Claim → what is said of an end, by verdict.
_SAYS = {
    STRENGTH: {
        SUPPORTED: "Towards {end} the kernel weakens",
        CONTRADICTED: "Towards {end} the kernel does not weaken",
        ABSENT: "Towards {end} the kernel keeps its strength, within a tenth",
        INCONCLUSIVE: "Whether the kernel weakens towards {end} is open",
    },
    RANK: {
        SUPPORTED: "Towards {end} the kernel loses rank",
        CONTRADICTED: "Towards {end} the kernel does not lose rank",
        ABSENT: "Towards {end} the kernel keeps its rank, within a tenth",
        INCONCLUSIVE: "Whether the kernel loses rank towards {end} is open",
    },
    CENTRED: {
        SUPPORTED: "Without the shared answer directions are lost there: samples are told apart in fewer",
        CONTRADICTED: "Without the shared answer no directions are lost there: samples are still told apart",
        ABSENT: "Without the shared answer the rank stays within a tenth there: samples are still told apart",
        INCONCLUSIVE: "Whether directions that tell samples apart are lost there is open",
    },
}
_STEPS = (
    "How many of the next training steps each of these kernels describes was not measured: 'ntkdiag drift RUN' does, for "
    "one network."
)
_SHORT = {STRENGTH: "C1", RANK: "C2", CENTRED: "centred kernel"}


def recipe_text(
    recipes: Sequence[Recipe],
    found: Mapping[str, SeedEffects],
    claims: pd.DataFrame,
    slopes: pd.DataFrame,
    why_not: str,
) -> str:
    """All paragraphs.

    Args:
        recipes: What was compared.
        found: Their statistics by name.
        claims, slopes: The tables of `RecipeVerification`.
        why_not: Why C3 is not testable; empty where it is.
    """
    paragraphs = []
    for recipe in recipes:
        rows = {
            (row["claim"], row["end"]): row
            for row in claims[claims["recipe"] == recipe.name].to_dict("records")
        }
        paragraphs.append(_paragraph(recipe, found[recipe.name], rows))
    paragraphs.append(_follows(recipes, slopes, why_not))
    paragraphs.append(
        "Each of these words (supported, contradicted, absent) is wrong in at most 5% of recipes: Student's t over seeds "
        f"against a factor of 1.1, corrected over the {len(claims) // len(recipes)} claims and ends of a recipe"
        + ("." if slopes.empty else f"; against 0 for slopes, corrected over all {len(slopes)}.")
    )
    paragraphs.append(_STEPS)
    return "\n\n".join(paragraphs)


def _paragraph(recipe: Recipe, found: SeedEffects, rows: Rows) -> str:
    parts = [_what_was_compared(recipe, found), _collapse(rows)]
    for end in ENDS:
        parts.append(_said(RANK, rows[RANK, end]))
        parts.append(_shared(end, found))
        parts.append(_said(CENTRED, rows[CENTRED, end]))
        parts += [_before(rows[claim, end]) for claim in (RANK, CENTRED)]
    parts += [_said(STRENGTH, rows[STRENGTH, end]) for end in ENDS]
    if not any(row["controls"] for row in rows.values()):
        parts.append("Whether it was so before training was not tested, since no fresh network was measured.")
    return " ".join(filter(None, [*parts, _what_to_do(rows)]))


def _what_was_compared(recipe: Recipe, found: SeedEffects) -> str:
    meta, levels = recipe.first.meta, found.log_snr
    network, data = (
        meta.get("network", {}).get("class", "of an unknown class"),
        (meta.get("data") or {}).get("name"),
    )
    low, high = (f"{round(float(level), 1) + 0.0:g}".replace("-", "−") for level in (levels[0], levels[-1]))
    return (
        f"Recipe {recipe.name}: {len(recipe.seeds)} training seeds of one network ({network}) that predicts {recipe.target}"
        + (f" on {data}" if data else "")
        + f", each measured with {recipe.first.grams['trace'].shape[-1]} samples at {len(levels)} noise levels, from "
        f"log-SNR {low} (noisy) to {high} (clean)."
    )


def _collapse(rows: Rows) -> str:
    ends: dict[str, list[str]] = {}
    for end in ENDS:
        ends.setdefault(rows[RANK, end]["verdict"], []).append(end)
    fallen, unsure = ends.get(SUPPORTED, []), ends.get(INCONCLUSIVE, [])
    start = "In networks of this recipe the kernel"
    doubt = f"; at {_where(unsure)} that is open" if unsure else ""
    if fallen:
        return f"{start} collapses at {_where(fallen)} of the range{doubt}."
    if len(unsure) == len(ENDS):
        return "Whether the kernel collapses in networks of this recipe is open at both ends of the range."
    kept = _where([end for end in ENDS if end not in unsure], "either")
    return f"{start} does not collapse at {kept} of the range{doubt}."


def _where(ends: Sequence[str], both: str = "both") -> str:
    if len(ends) == 1:
        return f"the {ends[0]} end"
    return f"{both} {'ends' if both == 'both' else 'end'}"


def _said(claim: str, row: Mapping[Any, Any]) -> str:
    """A verdict, with the numbers of the statistic that falls least of those that the claim needs."""
    start = (
        f"{_SAYS[claim][row['verdict']].format(end=_TOWARDS[row['end']])} ({_SHORT[claim]} {row['verdict']})"
    )
    if row["note"]:
        return f"{start}: {row['note']}."
    name, middle, there = row["statistic"], short(row["middle"], 3), short(row["at_end"], 3)
    low, high = (ratio(math.exp(-row[part])) for part in ("high", "low"))
    change = f"{middle} in the middle third, {there} in the {row['end']} third"
    return f"{start}: {named(name)} {change}, {_times(row['effect'])} [{low}, {high}]."


def _shared(end: str, found: SeedEffects) -> str:
    """How much of the kernel is one answer."""
    there, middle = (found.typical(SHARE, part) for part in (end, "middle"))
    if not (math.isfinite(there) and math.isfinite(middle)):
        return ""
    return (
        f"In the {end} third one answer that all samples share makes up {percent(there)} of the kernel "
        f"({percent(middle)} in the middle)."
    )


def _before(row: Mapping[Any, Any]) -> str:
    """What fresh networks do, where something definite changes."""
    if row["verdict"] not in (SUPPORTED, CONTRADICTED) or not row["controls"]:
        return ""
    said = {
        LEARNED: "Training did this",
        AS_UNTRAINED: "It was so before training",
        NO_CLAIM: "Nothing is claimed about training, since fresh networks change more",
    }.get(row["learned"], "How fresh networks differ is not known")
    networks = "1 fresh network" if row["controls"] == 1 else f"{row['controls']} fresh networks"
    name = named(row["statistic"])
    return f"{said}: the {name} changes by {_times(row['effect'])}, in {networks} by {_times(row['control_mean'])}."


def _what_to_do(rows: Rows) -> str:
    """Which weights follow from it, or none."""
    lost = [end for end in ENDS if rows[CENTRED, end]["verdict"] == SUPPORTED]
    learned = [end for end in lost if rows[CENTRED, end]["learned"] == LEARNED]
    if learned:
        return (
            f"What to do: training loses directions that tell samples apart at {_where(learned)}; try weights that follow "
            "the recoverable share ('ntkdiag weights --score bayes'), and keep them only if the held-out loss there falls."
        )
    if lost:
        return (
            f"What to do: nothing follows for the weights. At {_where(lost)} samples are told apart in fewer directions, "
            "but that training did this is not shown."
        )
    fallen = [end for end in ENDS if rows[RANK, end]["verdict"] == SUPPORTED]
    unsure = [end for end in ENDS if rows[CENTRED, end]["verdict"] == INCONCLUSIVE]
    if any(end in unsure for end in fallen):
        return (
            "What to do: add training seeds, or measure with more samples, before changing the weights: whether samples are "
            "still told apart is open where the rank collapses."
        )
    if fallen:
        return "What to do: this calls for no other loss weights, since only the shared answer grows."
    return "What to do: keep the weights; nothing shown here calls for others."


def _times(effect: float) -> str:
    """End divided by middle."""
    return f"×{ratio(math.exp(-effect))}" if math.isfinite(effect) else "–"


def _follows(recipes: Sequence[Recipe], slopes: pd.DataFrame, why_not: str) -> str:
    if why_not:
        return (
            "C3, that degradation follows the recoverability of the target and not the noise, is not testable: it "
            f"{why_not}."
        )
    rows = slopes.to_dict("records")
    names = ", ".join(recipe.name for recipe in recipes)
    data = (recipes[0].first.meta.get("data") or {}).get("name") or "these data"
    said = "; ".join(_slope(row) for row in rows)
    return (
        f"What the rank follows between recipes ({names}; the same noise levels and samples, and seeds in the order "
        f"given): {said}. This is one data set ({data}): within one, a curve of a target's own cannot be told from the "
        "ruler, so C3 stands only if another data set says the same."
    )


def _slope(row: Mapping[Any, Any]) -> str:
    verb = {
        SUPPORTED: "follows",
        CONTRADICTED: "goes against",
        ABSENT: "does not follow",
        INCONCLUSIVE: "cannot be said to follow",
    }[row["verdict"]]
    claim = "C3 " if row["follows"] == RECOVERABLE else ""
    slope = ", ".join(f"{row[part]:.3f}" for part in ("low", "high")).replace("-", "−")
    value = f"{row['slope']:.3f}".replace("-", "−")
    return f"the {named(row['statistic'])} {verb} the {row['follows']} ({claim}{row['verdict']}, slope {value} [{slope}])"
