"""Where the parameters of a candidate are searched: over the log-SNR at which they bend the curve of weights.

A smooth bend shows beyond the noise levels at which weights are known, so the search reaches further than they do; a bend
that shows nowhere is refused afterwards (`Fit.unseen`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.weights.audit.candidates import Candidate
from ntkdiag.weights.audit.known_mistakes import TERMINAL
from ntkdiag.weights.rules.catalogue import Parameter

# Values of a coarse search, evenly spaced in log-SNR.
COARSE = 33

# How far beyond the known noise levels a bend is searched, in log-SNR: 1 + e^-5 is 1 but for 7e-3.
_BEYOND = 5.0

_TERMINAL_ALPHA = Parameter(0.0, at_least=0.0, bend="snr")
# ln √ᾱ_T of a schedule of betas: 5e-5 for the cosine one of diffusers, 0.07 for that of Stable Diffusion.
_TERMINAL_RANGE = (math.log(1e-6), math.log(0.5))


@dataclass(frozen=True)
class SearchRange:
    """A parameter, and the range of log-SNR over which its bend is searched."""

    parameter: Parameter
    low: float
    high: float

    def value(self, log_snr: float) -> float:
        """The parameter that bends the curve at `log_snr`, which is moved into the range."""
        return self.parameter.at_bend(min(max(log_snr, self.low), self.high))

    def position(self, value: float) -> float:
        """Log-SNR of the bend for a value of the parameter; the end of the range for one outside of it."""
        return min(max(self.parameter.bend_of(value), self.low), self.high)

    def coarse(self) -> list[float]:
        """33 values, evenly spaced in log-SNR."""
        return [self.value(level) for level in torch.linspace(self.low, self.high, COARSE).tolist()]


def search_range(name: str, candidate: Candidate, log_snr: Tensor) -> SearchRange:
    """The range for a parameter that is a number.

    Args:
        name: Of the parameter, or `TERMINAL`.
        candidate: Whose it is.
        log_snr: Where weights are known, ascending [n].
    """
    if name == TERMINAL:
        return SearchRange(_TERMINAL_ALPHA, *_TERMINAL_RANGE)
    low, high = log_snr[0].item(), log_snr[-1].item()
    return SearchRange(candidate.rule.parameters[name], low - _BEYOND, high + _BEYOND)


def coarse_values(name: str, candidate: Candidate, log_snr: Tensor) -> list[float | str]:
    """Coarse values of a parameter: the names it may take, or its default and 33 other numbers; as `search_range`."""
    parameter = candidate.rule.parameters.get(name)
    if parameter is not None and parameter.choices:
        return list(parameter.choices)
    row: list[float | str] = [*search_range(name, candidate, log_snr).coarse()]
    return row if parameter is None else [float(parameter.default), *row]
