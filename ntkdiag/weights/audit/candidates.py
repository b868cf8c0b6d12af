"""What a weight function might be: every rule, and every rule with one or two of the known mistakes.

A candidate is a formula, the target it is written for, and what is taken for the SNR. A sound candidate has a formula
of the catalogue, the target trained on, and the SNR itself; each departure from that is a mistake with a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights.audit.known_mistakes import TERMINAL, TRUE_SNR, WRONG_FORMULAS, Distortion, distortions
from ntkdiag.weights.rules.catalogue import RULES, Rule
from ntkdiag.weights.rules.evaluate import PATH_FREE_TARGETS, depends_on_schedule, log_weight_of

Values = Mapping[str, float | str]


@dataclass(frozen=True)
class Candidate:
    """One formula that a curve of weights is compared with.

    Attributes:
        rule: Formula and parameters.
        target: The target the formula is brought to.
        distortion: What is taken for the SNR.
        mistakes: Names of the departures, as in `audit_finding.NAMES`; none for a sound rule.
        text: What the departures are.
        published: Whether the formula itself is one that was published by mistake.
    """

    rule: Rule
    target: str
    distortion: Distortion = TRUE_SNR
    mistakes: tuple[str, ...] = ()
    text: str = field(default="", compare=False)
    published: bool = False

    def log_weight(self, log_snr: Tensor, schedule: Schedule | None, values: Values) -> Tensor:
        """ln w [n] for finite log-SNR [n] and all parameters, `TERMINAL` among them if it is fitted."""
        parameters = {name: values[name] for name in self.rule.parameters}
        level = self.distortion.apply(log_snr, float(values.get(TERMINAL, 0.0)))
        return log_weight_of(self.rule, self.target, schedule, parameters)(level)


def sound(target: str, schedule: Schedule | None) -> list[Candidate]:
    """Every rule of the catalogue on a target."""
    return [Candidate(rule, target) for rule in RULES.values() if _possible(rule, target, schedule)]


def mistaken(rule: Rule, target: str, schedule: Schedule | None) -> Iterator[Candidate]:
    """A rule with one mistake: in its target, its formula or its SNR."""
    yield from _elsewhere(rule, target, schedule)
    for wrong in WRONG_FORMULAS.get(rule.name, ()):
        if wrong.formula.home in ("x0", target):
            yield Candidate(wrong.formula, target, TRUE_SNR, (wrong.mistake,), wrong.text, published=True)
    if _possible(rule, target, schedule):
        for distortion in distortions(schedule):
            yield Candidate(rule, target, distortion, (distortion.mistake,), distortion.text)


def mistaken_twice(rule: Rule, target: str, schedule: Schedule | None) -> Iterator[Candidate]:
    """A rule written for another target, with a second mistake in its formula or its SNR."""
    for first in _elsewhere(rule, target, schedule):
        for second in mistaken(rule, first.target, schedule):
            if second.target == first.target:
                text = f"{first.text}, and {second.text}"
                names = (*first.mistakes, *second.mistakes)
                yield replace(second, mistakes=names, text=text)


def _elsewhere(rule: Rule, target: str, schedule: Schedule | None) -> Iterator[Candidate]:
    known = PATH_FREE_TARGETS if schedule is None else (*PATH_FREE_TARGETS, "flow", "F")
    for other in known:
        if other != target and _possible(rule, other, schedule):
            text = f"the formula for {other}, applied to {target}"
            yield Candidate(rule, other, mistakes=("formula_of_another_target",), text=text)


def _possible(rule: Rule, target: str, schedule: Schedule | None) -> bool:
    """Whether the rule can be written on this target with what is known of the schedule."""
    return schedule is not None or not depends_on_schedule(rule, target, rule.settle({}))
