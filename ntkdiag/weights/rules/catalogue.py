"""The catalogue of closed-form rules, and `register_rule`, the decorator that puts a rule into it.

A rule is one decorated function. All that shows rules reads `RULES`: tables, the command line, the audit and the
figures. The published rules are in formulas.py; docs/extend/weight_rule.py adds one from outside the package.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ntkdiag.errors import InputError, require_number, require_one_of
from ntkdiag.process.target import target_name

Formula = Callable[..., Tensor]
# What a formula may ask for by the name of an argument, besides the parameters of its rule.
_CONTEXT = ("schedule", "target")
# exp of more leaves the range of a float.
_MOST = 709.0
# How a parameter follows from the log-SNR at which it bends the curve, and the way back.
BENDS: Mapping[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "snr": (lambda log_snr: math.exp(min(log_snr, _MOST)), math.log),
    "sigma": (lambda log_snr: math.exp(min(-log_snr / 2, _MOST)), lambda sigma: -2 * math.log(sigma)),
    "log_snr": (float, float),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a rule: its default, the values it may take, and where an audit searches for it.

    Attributes:
        default: Value where none is given.
        above, at_least: Lower bound of a number, excluded or included; at most one of them.
        choices: The names it may take, for a parameter that is not a number.
        bend: Which quantity the parameter is at the noise level where it bends the curve: "snr" (γ of min-SNR),
            "sigma" (a noise level σ/α) or "log_snr". An audit searches the noise levels that it sees. Left out: "snr"
            for a parameter that cannot be negative, otherwise "log_snr".
        exponent: Whether the weight is some function of log-SNR to this power; an audit then solves for it.

    Example:
        >>> nd.weights.RULES["min_snr"].parameters["gamma"].default
        5.0
    """

    default: float | str
    above: float | None = None
    at_least: float | None = None
    choices: tuple[str, ...] = ()
    bend: str | None = None
    exponent: bool = False

    def check(self, name: str, value: Any) -> float | str:
        """Return `value` as stored.

        Raises:
            InputError: it is not a finite number in range, or not one of the choices.
        """
        if self.choices:
            return require_one_of(name, value, self.choices)
        return require_number(name, value, above=self.above, at_least=self.at_least)

    def at_bend(self, log_snr: float) -> float:
        """The value that bends the curve at `log_snr`, moved into the range of the parameter."""
        least = -math.inf if self.at_least is None else self.at_least
        if self.above is not None:
            least = math.nextafter(self.above, math.inf)
        return max(BENDS[self._bend][0](log_snr), least)

    def bend_of(self, value: float) -> float:
        """Log-SNR at which the curve bends, −∞ or ∞ where it does not."""
        if self._bend != "log_snr" and value <= 0:
            return -math.inf if self._bend == "snr" else math.inf
        return BENDS[self._bend][1](value)

    @property
    def _bend(self) -> str:
        bounds = [bound for bound in (self.above, self.at_least) if bound is not None]
        return self.bend or ("snr" if bounds and bounds[0] >= 0 else "log_snr")


@dataclass(frozen=True)
class Rule:
    """A closed-form weight.

    Attributes:
        name: As `evaluate` takes it.
        home: Target the formula is written on; None: the formula gives a weight of its own for each target.
        formula: ln w as a function of log-SNR, with the parameters as keywords.
        text: The formula, for people.
        parameters: What may be set.
        reference: Where the rule was published.
        at_zero_snr: From the parameters to the weight at SNR 0, for a rule that sets one in place of its limit.

    Example:
        >>> nd.weights.RULES["min_snr"].home, nd.weights.RULES["min_snr"].text
        ('x0', 'min(SNR, γ) on x0')
    """

    name: str
    home: str | None
    formula: Formula
    text: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    reference: str = ""
    at_zero_snr: Callable[..., float | None] | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Which of "schedule" and "target" the formula takes besides the parameters."""
        return tuple(name for name in _CONTEXT if name in _arguments(self.formula))

    @property
    def requires_schedule(self) -> bool:
        """Whether the formula cannot be evaluated without a schedule on any target."""
        schedule = _arguments(self.formula).get("schedule")
        return schedule is not None and schedule.default is inspect.Parameter.empty

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


_registered: dict[str, Rule] = {}
RULES: Mapping[str, Rule] = MappingProxyType(_registered)


def register_rule(
    name: str,
    home: str | None,
    *,
    text: str,
    reference: str = "",
    parameters: Mapping[str, Parameter] | None = None,
    at_zero_snr: Callable[..., float | None] | None = None,
) -> Callable[[Formula], Formula]:
    """A decorator that adds a closed-form rule to `RULES`.

    The decorated function takes log-SNR (finite, float64, any shape) and, as keywords, every parameter; it returns
    ln w of the same shape. It may also take `target`, and `schedule`: without a default where it always needs the
    schedule trained on, with None as the default where it needs one for some targets or parameters; it then raises an
    `InputError` for them.

    Args:
        name: A lower-case identifier.
        home: Target whose squared error the weight multiplies; on other targets the weight is converted so that the
            objective stays the same. None: the formula takes `target` and nothing is converted.
        text: The formula in one line.
        reference: Where it was published.
        parameters: The keywords of the function, with defaults and ranges.
        at_zero_snr: See `Rule`.

    Returns:
        The decorator; the function itself stays as it is.

    Raises:
        InputError: a name that is taken or no identifier, an unknown target, or parameters that are not the keywords
            of the function.

    Example:
        >>> from ntkdiag.weights import evaluate, register_rule, unregister_rule
        >>> @register_rule("squared_snr", "epsilon", text="SNR² on ε")
        ... def squared_snr(log_snr):
        ...     return 2 * log_snr
        >>> evaluate("squared_snr", "epsilon", 0.0).item()
        1.0
        >>> unregister_rule("squared_snr")
    """
    if not name.isidentifier() or name != name.lower():
        raise InputError("name of a rule", expected="a lower-case identifier", got=repr(name))

    def register(formula: Formula) -> Formula:
        known = _registered.get(name)
        if known is not None and _origin(known.formula) != _origin(formula):
            raise InputError("name of a rule", expected="a name that is not taken", got=repr(name))
        settled = dict(parameters or {})
        if "log_snr" in settled or _keywords(formula) != set(settled):
            keywords = ", ".join(sorted(_keywords(formula))) or "none"
            raise InputError(
                f"parameters of rule '{name}'",
                expected=f"the keywords of its function: {keywords}",
                got=", ".join(sorted(settled)) or "none",
            )
        own = None if home is None else target_name(home)
        _registered[name] = Rule(name, own, formula, text, settled, reference, at_zero_snr)
        return formula

    return register


def unregister_rule(name: str) -> None:
    """Take a rule out of `RULES`.

    Raises:
        InputError: no such rule.

    Example:
        >>> @nd.weights.register_rule("half", home="epsilon", text="1/2")
        ... def half(log_snr):
        ...     return torch.full_like(log_snr, 0.5).log()
        >>> nd.weights.unregister_rule("half")
        >>> "half" in nd.weights.RULES
        False
    """
    del _registered[find(name).name]


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


@cache
def _arguments(formula: Formula) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(formula).parameters


def _keywords(formula: Formula) -> set[str]:
    """The parameters that a formula takes: its arguments but for log-SNR, the first, and the context."""
    return set(list(_arguments(formula))[1:]) - set(_CONTEXT)


def _origin(formula: Formula) -> tuple[str, str]:
    """Module and name: a cell of a notebook that runs again defines the same rule again."""
    return formula.__module__, formula.__qualname__
