"""The list of closed-form weights: name, formula, the target it is written on, and its parameters.

To add one: a function in formulas.py that returns ln w, and an entry in `RULES` here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.recoverability import CONVENTIONS
from ntkdiag.weights.rules import formulas

# Of a float; a whole number may be larger, and NaN is not at most this either.
_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Parameter:
    """A rule's parameter: its default, and the values it may take (a lower bound, or a list of names)."""

    default: float | str
    above: float | None = None
    at_least: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> float | str:
        """Return `value` as stored.

        Raises:
            InputError: it is not a finite number in range, or not one of the choices.
        """
        if self.choices:
            return require_one_of(name, value, self.choices)
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
        too_low = number and (
            (self.above is not None and value <= self.above)
            or (self.at_least is not None and value < self.at_least)
        )
        if not number or too_low:
            raise InputError(name, expected=self._range(), got=repr(value))
        return float(value)

    def _range(self) -> str:
        if self.above is not None:
            return f"a number above {self.above:g}"
        return f"a number of at least {self.at_least:g}" if self.at_least is not None else "a finite number"


@dataclass(frozen=True)
class Rule:
    """A closed-form weight.

    Attributes:
        name: As `evaluate` takes it.
        home: Target the formula is written on; None: it is given anew for each target.
        formula: ln w as a function of log-SNR, with the parameters as keywords.
        text: The formula, for people.
        parameters: What may be set.
        needs: Which of "schedule" and "target" the formula is handed besides.
    """

    name: str
    home: str | None
    formula: Callable[..., Tensor]
    text: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def settle(self, given: Mapping[str, Any]) -> dict[str, float | str]:
        """All parameters: those given, checked, and the defaults of the others.

        Raises:
            InputError: a parameter the rule does not have, or a value out of range.
        """
        for name in given:
            if not self.parameters:
                raise InputError(f"rule '{self.name}'", expected="no parameters", got=repr(name))
            require_one_of(f"parameter of rule '{self.name}'", name, self.parameters)
        return {
            name: parameter.check(f"{name} of rule '{self.name}'", given.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }


_GAMMA = {"gamma": Parameter(5.0, above=0.0)}

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Rule("constant_epsilon", "epsilon", formulas.constant, "1 on ε"),
            Rule("constant_x0", "x0", formulas.constant, "1 on x0"),
            Rule("constant_v", "v", formulas.constant, "1 on v"),
            Rule("min_snr", "x0", formulas.min_snr, "min(SNR, γ) on x0", _GAMMA),
            Rule("soft_min_snr", "x0", formulas.soft_min_snr, "γ·SNR/(SNR + γ) on x0", _GAMMA),
            Rule(
                "p2",
                "epsilon",
                formulas.p2,
                "(k + SNR)^−γ on ε",
                {"k": Parameter(1.0, at_least=0.0), "gamma": Parameter(1.0, at_least=0.0)},
            ),
            Rule("debias", "epsilon", formulas.debias, "1/√SNR on ε"),
            Rule("truncated_snr", "x0", formulas.truncated_snr, "max(SNR, 1) on x0"),
            Rule(
                "edm",
                "x0",
                formulas.edm,
                "SNR + 1/σ_d² on x0 (1 on F)",
                {"sigma_data": Parameter(0.5, above=0.0)},
            ),
            Rule(
                "sigmoid",
                "epsilon",
                formulas.sigmoid,
                "sigmoid(b − λ)/p(λ) on ε",
                {"bias": Parameter(2.0)},
                needs=("schedule",),
            ),
            Rule(
                "erd",
                None,
                formulas.erd,
                "ε: σ, x0: α, v: α σ, each its own objective",
                {"convention": Parameter("vp", choices=CONVENTIONS)},
                needs=("schedule", "target"),
            ),
            Rule("uniform", "x0", formulas.uniform, "1 on the linear path's velocity"),
            Rule("cosmap", "x0", formulas.cosmap, "2/(π(1 − 2t + 2t²)) on the linear path's velocity"),
        )
    }
)


def find(name: str) -> Rule:
    """The rule of that name; "min-SNR" is read as "min_snr".

    Raises:
        InputError: no such rule (with the closest spelling), or one that has no closed form.
    """
    key = str(name).strip().lower().replace("-", "_")
    if key == "edm2":
        raise InputError(
            "rule",
            expected="a weight with a closed form",
            got="'edm2', whose u(σ) is learned with the network (Karras et al. 2024, arXiv 2312.02696)",
            fix="Use 'edm' for its fixed part, or a Refresher for weights that follow the training.",
        )
    return RULES[require_one_of("rule", key, RULES)]
