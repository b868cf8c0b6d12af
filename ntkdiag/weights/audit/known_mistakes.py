"""Mistakes seen in public code: formulas that were published for a rule by mistake, and quantities taken for the SNR."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.discrete import log_snr_of_steps
from ntkdiag.weights.rules.catalogue import Parameter, Rule

# Name of √ᾱ_T, the signal that betas leave at the last step, among the values of a candidate.
TERMINAL = "terminal_alpha"


@dataclass(frozen=True)
class Distortion:
    """What is taken for log-SNR by mistake before the formula sees it.

    Attributes:
        mistake: Its name among `audit_finding.NAMES`; empty where nothing is changed.
        text: What was taken for what.
        apply: (log-SNR, √ᾱ_T of the betas before they were rescaled) → log-SNR that the formula sees.
        fitted: Whether √ᾱ_T plays a part and is to be found.
    """

    mistake: str
    text: str
    apply: Callable[[Tensor, float], Tensor]
    fitted: bool = False


TRUE_SNR = Distortion("", "", lambda level, _: level)
_DISTORTIONS = (
    Distortion("snr_not_squared", "α/σ was taken for the SNR, which is α²/σ²", lambda level, _: level / 2),
    Distortion(
        "snr_squared_twice", "α⁴/σ⁴ was taken for the SNR, which is α²/σ²", lambda level, _: 2 * level
    ),
    Distortion("snr_inverted", "σ²/α² was taken for the SNR, which is α²/σ²", lambda level, _: -level),
)


@dataclass(frozen=True)
class WrongFormula:
    """A formula that was published for a rule by mistake.

    Attributes:
        mistake: Its name among `audit_finding.NAMES`.
        text: What stands where something else should.
        formula: The wrong formula, as a rule of its own.
        same_as: A sound rule with the same weights on that target, which may be what is meant; empty if none.
    """

    mistake: str
    text: str
    formula: Rule
    same_as: str = ""


def _max_snr(log_snr: Tensor, *, gamma: float) -> Tensor:
    return torch.clamp(log_snr, min=math.log(gamma))


def _weight_plus_one(log_snr: Tensor, *, gamma: float) -> Tensor:
    """ln(min(1, γ/SNR) + 1)."""
    return torch.log1p(torch.clamp(math.log(gamma) - log_snr, max=0.0).exp())


def _snr_plus_one(log_snr: Tensor, *, gamma: float) -> Tensor:
    """ln min(1, γ/(SNR + 1))."""
    return torch.clamp(math.log(gamma) + logsigmoid(-log_snr), max=0.0)


def _no_root(log_snr: Tensor) -> Tensor:
    """ln 1/(1 + SNR)."""
    return logsigmoid(-log_snr)


_GAMMA = {"gamma": Parameter(5.0, above=0.0)}
# By the name of the rule: denoising-diffusion-pytorch issue 363; diffusers PR 5096, and PR 5238 until PR 6307;
# sd-scripts issue 1058.
WRONG_FORMULAS: Mapping[str, tuple[WrongFormula, ...]] = {
    "min_snr": (
        WrongFormula(
            "max_for_min",
            "max(SNR, γ) where min-SNR has min(SNR, γ), so that it raises the weights that it should limit",
            Rule("max_snr", "x0", _max_snr, "max(SNR, γ) on x0", _GAMMA),
        ),
        WrongFormula(
            "weight_plus_one",
            "min(SNR, γ)/SNR + 1, where v needs min(SNR, γ)/(SNR + 1)",
            Rule("min_snr_plus_one", "v", _weight_plus_one, "min(SNR, γ)/SNR + 1 on v", _GAMMA),
        ),
        WrongFormula(
            "snr_plus_one",
            "min(SNR + 1, γ)/(SNR + 1), where v needs min(SNR, γ)/(SNR + 1)",
            Rule("min_one_plus_snr", "v", _snr_plus_one, "min(SNR + 1, γ)/(SNR + 1) on v", _GAMMA),
        ),
    ),
    "debias": (
        WrongFormula(
            "debias_without_root",
            "1/(1 + SNR) on v is the plain error of x0; debias on v is √SNR/(1 + SNR)",
            Rule("inverse_one_plus_snr", "v", _no_root, "1/(1 + SNR) on v"),
            same_as="constant_x0",
        ),
    ),
}


def distortions(schedule: Schedule | None) -> tuple[Distortion, ...]:
    """What may have been taken for the SNR of this schedule."""
    return (*_DISTORTIONS, *_before_rescale(schedule))


def _before_rescale(schedule: Schedule | None) -> tuple[Distortion, ...]:
    """The SNR of the betas before Lin et al. 2024 (arXiv 2305.08891, algorithm 1) moved √ᾱ to end in zero.

    The algorithm maps √ᾱ to (√ᾱ − √ᾱ_T)·√ᾱ_1/(√ᾱ_1 − √ᾱ_T); here the map is inverted, and √ᾱ_T is fitted.
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
