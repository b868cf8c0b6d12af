"""Readings: what a weight function might be — a rule, or a rule with one of the mistakes seen in public code.

A candidate is a formula, the target it is written for, and what is done to the SNR before it goes in. The
right one has the catalogue's formula, the target trained on, and the SNR itself; each departure is a mistake
with a name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.discrete import log_snr_of_steps
from ntkdiag.weights.rules.catalogue import RULES, Parameter, Rule
from ntkdiag.weights.rules.evaluate import depends_on_schedule, log_weight_of

Values = Mapping[str, float | str]

TERMINAL = "terminal_alpha"


@dataclass(frozen=True)
class Distortion:
    """What is done to log-SNR before the formula.

    Attributes:
        mistake: Its name among `audit_finding.NAMES`; empty for the identity.
        text: What was taken for what.
        apply: (log-SNR, √ᾱ_T of the betas before they were rescaled) → log-SNR that the formula sees.
        fitted: Whether √ᾱ_T plays a part and is to be found.
    """

    mistake: str
    text: str
    apply: Callable[[Tensor, float], Tensor]
    fitted: bool = False


TRUE = Distortion("", "", lambda level, _: level)
DISTORTIONS = (
    Distortion("snr_not_squared", "α/σ was taken for the SNR, which is α²/σ²", lambda level, _: level / 2),
    Distortion(
        "snr_squared_twice", "α⁴/σ⁴ was taken for the SNR, which is α²/σ²", lambda level, _: 2 * level
    ),
    Distortion("snr_inverted", "σ²/α² was taken for the SNR, which is α²/σ²", lambda level, _: -level),
)


def _max_snr(log_snr: Tensor, *, gamma: float) -> Tensor:
    return torch.clamp(log_snr, min=math.log(gamma))


def _weight_plus_one(log_snr: Tensor, *, gamma: float) -> Tensor:
    """ln(min(1, γ/SNR) + 1)."""
    return torch.log1p(torch.clamp(math.log(gamma) - log_snr, max=0.0).exp())


def _snr_plus_one(log_snr: Tensor, *, gamma: float) -> Tensor:
    """ln min(1, γ/(SNR + 1))."""
    return torch.clamp(math.log(gamma) + logsigmoid(-log_snr), max=0.0)


_GAMMA = {"gamma": Parameter(5.0, above=0.0)}
# Rule → formulas that were published for it by mistake: denoising-diffusion-pytorch issue 363; diffusers PR 5096,
# and PR 5238 until PR 6307.
WRONG_FORMULAS: Mapping[str, tuple[tuple[str, str, Rule], ...]] = {
    "min_snr": (
        (
            "max_for_min",
            "max(SNR, γ) where min-SNR has min(SNR, γ), so that what should be held back is lifted",
            Rule("max_snr", "x0", _max_snr, "max(SNR, γ) on x0", _GAMMA),
        ),
        (
            "weight_plus_one",
            "min(SNR, γ)/SNR + 1, where v needs min(SNR, γ)/(SNR + 1)",
            Rule("min_snr_plus_one", "v", _weight_plus_one, "min(SNR, γ)/SNR + 1 on v", _GAMMA),
        ),
        (
            "snr_plus_one",
            "min(SNR + 1, γ)/(SNR + 1), where v needs min(SNR, γ)/(SNR + 1)",
            Rule("min_one_plus_snr", "v", _snr_plus_one, "min(SNR + 1, γ)/(SNR + 1) on v", _GAMMA),
        ),
    )
}


@dataclass(frozen=True)
class Candidate:
    """One way to read a curve of weights.

    Attributes:
        rule: Formula and parameters.
        target: The target the formula is brought to.
        distortion: What is done to SNR first.
        mistakes: Names of the departures, as in `audit_finding.NAMES`; none for a sound rule.
        text: What the departures are.
    """

    rule: Rule
    target: str
    distortion: Distortion = TRUE
    mistakes: tuple[str, ...] = ()
    text: str = field(default="", compare=False)

    def log_weight(self, log_snr: Tensor, schedule: Schedule | None, values: Values) -> Tensor:
        """ln w [n] for finite log-SNR [n] and all parameters, `TERMINAL` among them if it is fitted."""
        parameters = {name: values[name] for name in self.rule.parameters}
        level = self.distortion.apply(log_snr, float(values.get(TERMINAL, 0.0)))
        return log_weight_of(self.rule, self.target, schedule, parameters)(level)


def sound(target: str, schedule: Schedule | None) -> list[Candidate]:
    """Every rule of the catalogue on a target."""
    return [Candidate(rule, target) for rule in RULES.values() if _possible(rule, target, schedule)]


def mistaken(rule: Rule, target: str, schedule: Schedule | None) -> Iterator[Candidate]:
    """A rule with one mistake: its formula, its target or its SNR."""
    yield from _elsewhere(rule, target, schedule)
    for name, text, wrong in WRONG_FORMULAS.get(rule.name, ()):
        if wrong.home in ("x0", target):
            yield Candidate(wrong, target, mistakes=(name,), text=text)
    if _possible(rule, target, schedule):
        for distortion in (*DISTORTIONS, *_before_rescale(schedule)):
            yield Candidate(rule, target, distortion, (distortion.mistake,), distortion.text)


def mistaken_twice(rule: Rule, target: str, schedule: Schedule | None) -> Iterator[Candidate]:
    """A rule written for another target, with a second mistake in its formula or its SNR."""
    for first in _elsewhere(rule, target, schedule):
        for second in mistaken(rule, first.target, schedule):
            if second.target == first.target:
                text = f"{first.text}, and {second.text}"
                yield Candidate(
                    second.rule, first.target, second.distortion, (*first.mistakes, *second.mistakes), text
                )


def _elsewhere(rule: Rule, target: str, schedule: Schedule | None) -> Iterator[Candidate]:
    known = ("epsilon", "x0", "v") if schedule is None else ("epsilon", "x0", "v", "flow", "F")
    for other in known:
        if other != target and _possible(rule, other, schedule):
            text = f"the formula for {other}, applied to {target}"
            yield Candidate(rule, other, mistakes=("formula_of_another_target",), text=text)


def _possible(rule: Rule, target: str, schedule: Schedule | None) -> bool:
    """Whether the rule can be written on this target without a schedule that is not there."""
    return schedule is not None or not depends_on_schedule(
        rule.name, target, {name: parameter.default for name, parameter in rule.parameters.items()}
    )


def _before_rescale(schedule: Schedule | None) -> tuple[Distortion, ...]:
    """The SNR of the betas before Lin et al. 2024 (arXiv 2305.08891, algorithm 1) moved √ᾱ to end in zero.

    The algorithm maps √ᾱ to (√ᾱ − √ᾱ_T)·√ᾱ_1/(√ᾱ_1 − √ᾱ_T); here it is undone, for a √ᾱ_T to be found.
    """
    if schedule is None or not schedule.discrete:
        return ()
    levels = log_snr_of_steps(schedule)
    if levels[-1] != -math.inf:
        return ()
    first = float(schedule.alpha(levels[0]))

    def undo(level: Tensor, terminal: float) -> Tensor:
        alpha = (logsigmoid(level) / 2).exp() * (1 - terminal / first) + terminal
        return 2 * alpha.log() - torch.log1p(-(alpha**2))

    text = "the SNR of the betas before they were rescaled to zero terminal SNR"
    return (Distortion("snr_before_rescale", text, undo, fitted=True),)
