"""Verdicts on a recipe: several training seeds, where a single network has an answer only.

`verification` gives them for diagnoses; `seed_tests` and `between_targets` are the statistics, functions of numbers alone.
"""

from ntkdiag.claims.recipe.between_targets import between_targets
from ntkdiag.claims.recipe.seed_tests import (
    ABSENT,
    CONTRADICTED,
    INCONCLUSIVE,
    LEVEL,
    MARGIN,
    MIN_SEEDS,
    SUPPORTED,
    SeedTest,
    Verdict,
    all_parts,
    decide,
    decided,
    holm,
    over_seeds,
)
from ntkdiag.claims.recipe.verification import RecipeVerification, verify_recipe

__all__ = [
    "ABSENT",
    "CONTRADICTED",
    "INCONCLUSIVE",
    "LEVEL",
    "MARGIN",
    "MIN_SEEDS",
    "SUPPORTED",
    "RecipeVerification",
    "SeedTest",
    "Verdict",
    "all_parts",
    "between_targets",
    "decide",
    "decided",
    "holm",
    "over_seeds",
    "verify_recipe",
]
