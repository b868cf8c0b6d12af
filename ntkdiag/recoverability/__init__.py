"""Recoverability: how much of a target the noisy input still tells, by several rulers.

`amplitude` is a closed form (the ERD score), `learnability` reads the kernel's spectrum, `gradient_signal` asks whether
per-sample gradients agree with one another, `contamination` how much of them is noise. The ruler that needs the data's
distribution, `bayes_share`, is in `ntkdiag.process.bayes`.
"""

from ntkdiag.recoverability.amplitude import CONVENTIONS, amplitude, log_amplitude
from ntkdiag.recoverability.contamination import contamination
from ntkdiag.recoverability.gradients import GradientSignal, gradient_cosine, gradient_signal
from ntkdiag.recoverability.learnability import contraction, learnability, median_half_life

__all__ = [
    "CONVENTIONS",
    "GradientSignal",
    "amplitude",
    "contamination",
    "contraction",
    "gradient_cosine",
    "gradient_signal",
    "learnability",
    "log_amplitude",
    "median_half_life",
]
