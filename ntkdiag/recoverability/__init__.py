"""Recoverability: how much of a target the noisy input determines, by several measures.

`amplitude` is a closed form (the ERD score), `learnability` reads the kernel's spectrum, `gradient_signal` says whether
per-sample gradients agree with one another, `gradient_gain` whether they agree with those of the whole objective, and
`contamination` how much of them is noise. The measure that needs the
data's distribution, `bayes_share`, is in `ntkdiag.process.bayes`.
"""

from ntkdiag.recoverability.amplitude import CONVENTIONS, amplitude, log_amplitude
from ntkdiag.recoverability.contamination import contamination
from ntkdiag.recoverability.gain import GradientGain, gradient_gain
from ntkdiag.recoverability.gradients import (
    GradientCosines,
    GradientSignal,
    gradient_cosine,
    gradient_cosines,
    gradient_signal,
)
from ntkdiag.recoverability.learnability import contraction, learnability, median_half_life

__all__ = [
    "CONVENTIONS",
    "GradientCosines",
    "GradientGain",
    "GradientSignal",
    "amplitude",
    "contamination",
    "contraction",
    "gradient_cosine",
    "gradient_cosines",
    "gradient_gain",
    "gradient_signal",
    "learnability",
    "log_amplitude",
    "median_half_life",
]
