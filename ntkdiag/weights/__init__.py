"""Loss weights: closed-form rules, weights from a measurement, and weights refreshed during training."""

from __future__ import annotations

from ntkdiag.weights.catalogue import RULES, Rule
from ntkdiag.weights.from_rule import rule
from ntkdiag.weights.measured import measured
from ntkdiag.weights.record import Record
from ntkdiag.weights.refresh import Refresher
from ntkdiag.weights.rules import effective, evaluate
from ntkdiag.weights.scores import SCORES
from ntkdiag.weights.source import WeightSource
from ntkdiag.weights.step_files import save_steps
from ntkdiag.weights.table import WeightTable

__all__ = [
    "RULES",
    "SCORES",
    "Record",
    "Refresher",
    "Rule",
    "WeightSource",
    "WeightTable",
    "effective",
    "evaluate",
    "measured",
    "rule",
    "save_steps",
]
