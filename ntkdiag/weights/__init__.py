"""Loss weights: closed-form rules, weights from a measurement, and weights refreshed during training."""

from __future__ import annotations

from ntkdiag.errors import explain_calls
from ntkdiag.weights.learned_uncertainty import LearnedUncertainty
from ntkdiag.weights.measured.from_diagnosis import measured
from ntkdiag.weights.measured.scores import SCORES
from ntkdiag.weights.refresh.history import Record
from ntkdiag.weights.refresh.refresher import Refresher
from ntkdiag.weights.rules.catalogue import RULES, Parameter, Rule, register_rule, unregister_rule
from ntkdiag.weights.rules.effective import effective
from ntkdiag.weights.rules.evaluate import evaluate
from ntkdiag.weights.source import LearnsFromLosses, WeightSource
from ntkdiag.weights.tables.from_rule import rule
from ntkdiag.weights.tables.step_files import save_steps
from ntkdiag.weights.tables.weight_table import WeightTable

__all__ = [
    "RULES",
    "SCORES",
    "LearnedUncertainty",
    "LearnsFromLosses",
    "Parameter",
    "Record",
    "Refresher",
    "Rule",
    "WeightSource",
    "WeightTable",
    "effective",
    "evaluate",
    "measured",
    "register_rule",
    "rule",
    "save_steps",
    "unregister_rule",
]

explain_calls(__name__, "nd.weights.rule('erd', target), or nd.weights.measured(diagnosis)")
