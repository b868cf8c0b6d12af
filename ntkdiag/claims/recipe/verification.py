"""`verify(…, recipe=True)`: verdicts on a recipe from the diagnoses of its training seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ntkdiag.claims.recipe.end_claims import end_claims, seed_effects
from ntkdiag.claims.recipe.following import following
from ntkdiag.claims.recipe.groups import recipes_of
from ntkdiag.claims.recipe.wording import recipe_text
from ntkdiag.diagnosis.result import Diagnosis
from ntkdiag.notebook import html_paragraphs, html_rows

COLUMNS = (
    "recipe", "claim", "end", "statistic", "middle", "at_end", "effect", "low", "high", "p", "verdict", "seeds",
    "p_supported", "p_contradicted", "p_absent", "controls", "control_mean", "control_low", "control_high", "net",
    "learned", "note",
)  # fmt: skip
SLOPE_COLUMNS = (
    "claim", "statistic", "follows", "recipes", "slope", "low", "high", "p", "verdict", "seeds", "p_supported",
    "p_contradicted", "p_absent", "note",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class RecipeVerification:
    """Verdicts on one recipe, or on several that differ in their target or schedule.

    Attributes:
        text: The plain answer, a paragraph a recipe and one on what they follow.
        claims: One row for each recipe, claim (C1 strength, C2 rank, rank of the centred kernel) and end: recipe, claim,
            end, statistic (of those that the claim needs, the one with the smallest fall, of which the numbers are), middle
            and at_end (geometric means over seeds), effect (ln(middle/at_end), mean over seeds, positive for a fall), low,
            high (its 90% interval over seeds), p (of the verdict, corrected by Holm's method; where it is inconclusive,
            the smallest of three), verdict (supported, contradicted, absent, inconclusive), seeds, p_supported,
            p_contradicted, p_absent (not corrected), controls (number of different fresh networks), their control_mean and
            95% prediction band control_low, control_high, net, learned (as in `Verification.claims`), note.
        slopes: C3 and what the ranks follow between recipes, a row a statistic and ruler: claim, statistic, follows,
            recipes (their number), slope of ln statistic on ln ruler with low, high, p, verdict, … as in `claims`. Empty
            where C3 is not testable.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"recipe": ["v"], "claim": ["C2"], "end": ["noisy"], "verdict": ["supported"]})
        >>> print(RecipeVerification("The rank falls at the noisy end in all five seeds.", rows, pd.DataFrame()))
        The rank falls at the noisy end in all five seeds.
    """

    text: str
    claims: pd.DataFrame
    slopes: pd.DataFrame

    def __repr__(self) -> str:
        rank = self.claims[self.claims["claim"] == "C2 rank"]
        said = ", ".join(
            f"{row['recipe']} {row['verdict']} at the {row['end']} end" for row in rank.to_dict("records")
        )
        return f"RecipeVerification(C2 rank: {said})"

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        shown = ["recipe", "claim", "end", "verdict", "learned", "effect", "low", "high", "p"]
        html = html_paragraphs(self.text)
        html += html_rows("Claims", shown, self.claims[shown].itertuples(index=False))
        if self.slopes.empty:
            return html
        shown = ["statistic", "follows", "verdict", "slope", "low", "high", "p"]
        return html + html_rows("Slopes", shown, self.slopes[shown].itertuples(index=False))

    def document(self) -> dict[str, Any]:
        """Text and tables in plain Python values."""
        return {
            "text": self.text,
            "claims": self.claims.to_dict("records"),
            "slopes": self.slopes.to_dict("records"),
        }


def verify_recipe(diagnoses: Mapping[str, Diagnosis]) -> RecipeVerification:
    """Verdicts from the diagnoses of at least 5 training seeds, by name; see `verify`.

    Raises:
        InputError: as `recipes_of`, or too few buckets or samples.
    """
    recipes = recipes_of(diagnoses)
    found = {recipe.name: seed_effects(recipe) for recipe in recipes}
    claims = pd.DataFrame(
        [row for recipe in recipes for row in end_claims(recipe, found[recipe.name])], columns=list(COLUMNS)
    )
    rows, why_not = following(recipes, found)
    slopes = pd.DataFrame(rows, columns=list(SLOPE_COLUMNS))
    return RecipeVerification(recipe_text(recipes, found, claims, slopes, why_not), claims, slopes)
