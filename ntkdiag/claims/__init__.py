"""Claims about a network, answered from a diagnosis: a plain text, a word for each statistic and end, and their numbers.

One network gets an answer: effects with simultaneous limits (`effects`), beside those of fresh networks. The paper's claims
are the files of `paper/`; verdicts need several training seeds (`recipe`).
"""

from ntkdiag.claims.answer import Answer, described, falls, untestable
from ntkdiag.claims.classes import ByClass, by_class
from ntkdiag.claims.control_band import ControlBand, control_band
from ntkdiag.claims.effects import Effect, EffectTable, effect_values, effects
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.recipe import RecipeVerification
from ntkdiag.claims.register import CLAIMS, Claim, claim
from ntkdiag.claims.verification import ANSWER_COLUMNS, COLUMNS, Verification, verify

__all__ = [
    "ANSWER_COLUMNS",
    "CLAIMS",
    "COLUMNS",
    "Answer",
    "ByClass",
    "Claim",
    "ControlBand",
    "Effect",
    "EffectTable",
    "Evidence",
    "RecipeVerification",
    "Verification",
    "by_class",
    "claim",
    "control_band",
    "described",
    "effect_values",
    "effects",
    "falls",
    "untestable",
    "verify",
]
