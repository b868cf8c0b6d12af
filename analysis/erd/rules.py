"""The weight rules of the study, each of mean 1 under the training density, and the pairs that must tie."""

from __future__ import annotations

from typing import Any

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights import WeightTable

CONSTANT = "constant"
# From the study's name of a rule to the name and the parameters in the register.
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    CONSTANT: ("constant_{target}", {}),
    "min_snr_5": ("min_snr", {"gamma": 5.0}),
    "soft_min_snr_5": ("soft_min_snr", {"gamma": 5.0}),
    "p2_1_1": ("p2", {"k": 1.0, "gamma": 1.0}),
    "p2_1_half": ("p2", {"k": 1.0, "gamma": 0.5}),
    "debias": ("debias", {}),
    "erd": ("erd", {}),
}
# MATH section 6: on this target the two rules are the same function.
TIES = {"epsilon": ("erd", "p2_1_half"), "v": ("erd", "debias")}


def weights(name: str, target: str, schedule: Schedule, clip: float) -> tuple[WeightTable, bool]:
    """The table of a rule, and whether it was clipped: only where the rule has no mean under the schedule."""
    registered, parameters = RULES[name]
    registered = registered.format(target=target)
    try:
        return nd.weights.rule(registered, target, schedule, **parameters), False
    except InputError:
        return nd.weights.rule(registered, target, schedule, clip=clip, **parameters), True
