"""Space: where the parameters of a candidate are looked for.

Every bend of a rule sits at some log-SNR u, and u is what is searched: γ = e^u for min-SNR. A bend is looked
for only where there are noise levels on both sides of it, since it would not be seen anywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ntkdiag.weights.audit.candidates import TERMINAL, Candidate

COARSE = 33

# √ᾱ_T of a schedule of betas: 5e-5 for the cosine one of diffusers, 0.07 for that of Stable Diffusion.
_TERMINAL_ALPHA = (math.log(1e-6), math.log(0.5))
# Parameter → its value for a bend at u, and the way back.
_BENDS: Mapping[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "gamma": (math.exp, math.log),
    "k": (math.exp, math.log),
    "sigma_data": (lambda u: math.exp(-u / 2), lambda value: -2 * math.log(value)),
    "bias": (float, float),
    TERMINAL: (math.exp, math.log),
}


def coarse_values(name: str, candidate: Candidate, log_snr: Tensor) -> list[float | str]:
    """Coarse values of a parameter: the names it may take; or its default and 33 others, evenly spaced in u.

    Args:
        name: Of the parameter.
        candidate: Whose it is.
        log_snr: Where weights are known, ascending [n].
    """
    parameter = candidate.rule.parameters.get(name)
    if parameter is not None and parameter.choices:
        return list(parameter.choices)
    low, high = bounds(name, log_snr)
    row: list[float | str] = [value(name, u) for u in torch.linspace(low, high, COARSE).tolist()]
    return row if parameter is None else [float(parameter.default), *row]


def bounds(name: str, log_snr: Tensor) -> tuple[float, float]:
    """Lowest and highest u of a parameter."""
    if name == TERMINAL:
        return _TERMINAL_ALPHA
    low, high = log_snr[0].item(), log_snr[-1].item()
    margin = (high - low) / 20
    return low + margin, high - margin


def value(name: str, position: float) -> float:
    """The parameter for u."""
    return _BENDS[name][0](position)


def position(name: str, value: float) -> float:
    """u for the parameter."""
    return _BENDS[name][1](value)
