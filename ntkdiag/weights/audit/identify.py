"""Which rule a curve of weights equals, or which known mistake, or how far it is from the nearest rule.

Of several readings that fit equally well the simplest wins (`Fit.rank`): a rule before a mistake, a default before a
parameter that was chosen to fit. A rule other than the one named counts as one supposition, as a mistake does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights.audit.audit_finding import AuditFinding
from ntkdiag.weights.audit.batch_checks import Curve
from ntkdiag.weights.audit.candidates import Candidate, Values, mistaken, mistaken_twice, sound
from ntkdiag.weights.audit.fit import TOLERANCE, Fit, fit
from ntkdiag.weights.audit.known_mistakes import TERMINAL, WRONG_FORMULAS
from ntkdiag.weights.rules.catalogue import RULES, Rule

# Rescaling betas in float32 costs digits of 1 − ᾱ at the clean end.
RESCALE_TOLERANCE = 5e-3


@dataclass(frozen=True)
class Expectation:
    """What the user says the weights are.

    Attributes:
        rule: The rule, or None.
        parameters: Those parameters of the rule that the user gives.
    """

    rule: Rule | None
    parameters: Values


@dataclass(frozen=True)
class Identity:
    """What the weights turn out to be.

    Attributes:
        matches: Every rule on the target that they equal, the simplest first.
        reference: The rule they are compared with: the one the user names, else the one they equal,
            else the nearest; None where no weight is positive.
        findings: What the audit reports of it.
    """

    matches: tuple[Fit, ...]
    reference: Fit | None
    findings: list[AuditFinding]


def identify(curve: Curve, target: str, schedule: Schedule | None, expected: Expectation) -> Identity:
    """Compare with every rule, and where none fits, with the known mistakes."""
    case = _Case(curve, target, schedule)
    fits = [found for candidate in sound(target, schedule) if (found := case.fit(candidate))]
    matches = tuple(sorted((found for found in fits if found.equal), key=lambda found: found.rank))
    nearest = matches[0] if matches else min(fits, key=lambda found: found.distance, default=None)
    if expected.rule is None:
        return Identity(matches, nearest, case.unnamed(matches, nearest))
    said = case.fit(Candidate(expected.rule, target), expected.parameters)
    if said is not None and said.equal:
        others = tuple(found for found in matches if found.rule != said.rule)
        return Identity((said, *others), said, [_equals(said)])
    return Identity(
        matches, said or nearest, case.mismatch(expected.rule, expected.parameters, matches, said)
    )


@dataclass(frozen=True)
class _Case:
    """Weights that are to be identified."""

    curve: Curve
    target: str
    schedule: Schedule | None

    def fit(self, candidate: Candidate, fixed: Values | None = None) -> Fit | None:
        return fit(candidate, self.curve, self.schedule, fixed)

    def unnamed(self, matches: tuple[Fit, ...], nearest: Fit | None) -> list[AuditFinding]:
        """The user names no rule: find one, or a known mistake."""
        if matches:
            return [_equals(matches[0], matches[1:]), *self.lookalikes(matches)]
        slips = self.slips(self._any_rule_mistaken())
        if slips:
            return self.mistakes(slips[0], slips[1:])
        return [_differs(nearest, "note")] if nearest is not None else []

    def mismatch(
        self, rule: Rule, parameters: Values, matches: tuple[Fit, ...], said: Fit | None
    ) -> list[AuditFinding]:
        """The weights are not those of the rule that the user names: find out why."""
        if parameters and (slips := self.slips(mistaken(rule, self.target, self.schedule), parameters)):
            return self.mistakes(slips[0])
        for found in matches:
            if found.rule == rule.name:
                return [_other_parameters(found, parameters)]
        slips = self.slips(mistaken(rule, self.target, self.schedule))
        if not slips and not matches:
            slips = self.slips(mistaken_twice(rule, self.target, self.schedule))
        others = list(matches)
        if not others and not (
            slips and slips[0].complexity <= 2
        ):  # 1 for the other rule, 1 for a mistake in it
            others = self.slips(self._any_rule_mistaken())
        if others and not (slips and slips[0].complexity <= 1 + others[0].complexity):
            return [_another_rule(others[0], rule), *self.mistakes(others[0], others[1:])]
        if slips:
            return self.mistakes(slips[0])
        return [_differs(said, "mistake")] if said is not None else []

    def slips(self, candidates: Iterable[Candidate], fixed: Values | None = None) -> list[Fit]:
        """Those mistaken candidates that explain the weights, the simplest first."""
        weight = self.curve.weight
        if not (torch.isfinite(weight) & (weight > 0)).all():
            return []  # nor would any fit be equal: all formulas are positive and finite where they are compared
        fits = (self.fit(candidate, fixed) for candidate in candidates)
        return sorted(
            (found for found in fits if found and self.accepts(found)), key=lambda found: found.rank
        )

    def _any_rule_mistaken(self) -> Iterator[Candidate]:
        for rule in RULES.values():
            yield from mistaken(rule, self.target, self.schedule)

    def accepts(self, found: Fit) -> bool:
        """Whether a mistake explains the weights; for one of the rescale, whether it does so better than the sound rule."""
        if found.equal or not found.candidate.distortion.fitted or found.error > RESCALE_TOLERANCE:
            return found.equal
        values = {name: value for name, value in found.values.items() if name != TERMINAL}
        plain = self.fit(Candidate(found.candidate.rule, found.candidate.target), values)
        return plain is not None and plain.error > 10 * found.error

    def mistakes(self, found: Fit, others: Iterable[Fit] = ()) -> list[AuditFinding]:
        """A finding for every mistake of a candidate; `others` with the same mistakes are named too."""
        terminal = f" (√ᾱ_T was {found.values[TERMINAL]:.3g})" if TERMINAL in found.values else ""
        ties = [one for one in others if one.candidate.text == found.candidate.text]
        text = (
            f"weights for {self.target} that are {found.name}{_also(ties)}: {found.candidate.text}{terminal}"
        )
        return [AuditFinding(name, "mistake", text) for name in found.candidate.mistakes]

    def lookalikes(self, matches: tuple[Fit, ...]) -> list[AuditFinding]:
        """Mistakes in another rule that give the weights of one of these."""
        rules = {found.rule for found in matches}
        wrong = (one for listed in WRONG_FORMULAS.values() for one in listed)
        return [
            AuditFinding(one.mistake, "note", one.text)
            for one in wrong
            if one.same_as in rules and one.formula.home == self.target
        ]


def _equals(found: Fit, others: tuple[Fit, ...] = ()) -> AuditFinding:
    times = "" if abs(math.log(found.factor)) <= TOLERANCE else f", times {found.factor:.4g}"
    text = f"{found.name}{times}{_also(others)}; largest difference {found.error:.1g}"
    return AuditFinding("equals", "note", text)


def _also(others: Collection[Fit]) -> str:
    return ", which is also " + " and ".join(one.name for one in others) if others else ""


def _another_rule(found: Fit, rule: Rule) -> AuditFinding:
    text = f"the weights are those of {found.name}, not of {rule.name}"
    return AuditFinding("another_rule", "mistake", text)


def _differs(found: Fit, severity: str) -> AuditFinding:
    """Where a curve differs most from a rule, and where the two agree."""
    size = found.log_ratio.abs().nan_to_num(math.inf)
    worst = int(size.argmax())
    where = found.log_snr[worst].item()
    ratio = "not a number" if math.isnan(found.log_ratio[worst]) else f"{found.log_ratio[worst].exp():.3g}"
    text = f"largest ratio to {found.name} is {ratio}, at log-SNR {where:.3g}; {_agreement(found, size <= TOLERANCE)}"
    return AuditFinding("differs", severity, text, where)


def _agreement(found: Fit, agrees: Tensor) -> str:
    """The longest stretch of noise levels on which the two are equal."""
    starts, best = 0, (0, 0)
    for index, good in enumerate([*agrees.tolist(), False]):
        if not good:
            best = max(best, (starts, index), key=lambda run: run[1] - run[0])
            starts = index + 1
    if best[1] - best[0] < 2:
        return "nowhere equal"
    first, last = found.log_snr[best[0]].item(), found.log_snr[best[1] - 1].item()
    return f"equal from {first:.3g} to {last:.3g}"


def _other_parameters(found: Fit, parameters: Values) -> AuditFinding:
    said = ", ".join(f"{name}={value}" for name, value in parameters.items())
    return AuditFinding(
        "other_parameters", "mistake", f"the weights are those of {found.name}, not of {said}"
    )
