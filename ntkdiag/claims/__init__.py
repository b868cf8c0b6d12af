"""Claims about a diagnosis, as tests that can fail: one decorated function a claim, one row a claim in the result.

The paper's claims are the files of `paper/`; `verdict` decides between supported, contradicted and inconclusive.
"""

from ntkdiag.claims.effects import Effect, EffectTable, effect_values, effects
from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.register import CLAIMS, Claim, claim
from ntkdiag.claims.trend import falls
from ntkdiag.claims.verdict import ClaimResult, all_of, untestable
from ntkdiag.claims.verification import COLUMNS, judge, verify

__all__ = [
    "CLAIMS",
    "COLUMNS",
    "Claim",
    "ClaimResult",
    "Effect",
    "EffectTable",
    "Evidence",
    "all_of",
    "claim",
    "effect_values",
    "effects",
    "falls",
    "judge",
    "untestable",
    "verify",
]
