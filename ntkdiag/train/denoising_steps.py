"""Samplers that predict the data, and add noise again at the next level: DDIM, and ancestral sampling.

From log-SNR λ up to λ', with x̂0 and ε̂ the network's predictions at x: x' = α' x̂0 + σ' (√r ε̂ + √(1−r) n), n fresh noise.
Ancestral sampling has r = e^{λ−λ'}; then x' is drawn from the posterior of the process, given x and x̂0 (Ho et al. 2020,
arXiv 2006.11239, equations 6 and 7, for any α and σ). DDIM has r = 1, no noise (Song et al. 2021, arXiv 2010.02502,
equation 12 with σ_t = 0).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import require_positive_int
from ntkdiag.modes import evaluating
from ntkdiag.process import target
from ntkdiag.process.log_snr import expand, level_like
from ntkdiag.train.guidance import guided

# From the number of a step to fresh noise [N, *shape].
Noise = Callable[[int], Tensor]


def denoising_steps(
    denoiser: Denoiser,
    x: Tensor,
    start: float,
    stop: float,
    steps: int,
    cond: Any = None,
    guidance: float | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """Carry samples from one log-SNR to a higher one, in steps of equal log-SNR with one network call each.

    Args:
        denoiser: Network, schedule and target.
        x: Samples [N, *shape] at log-SNR `start`.
        start, stop: Finite log-SNR.
        steps: Number of steps, at least 1.
        cond, guidance: As in `ntkdiag.train.sample`; with guidance twice the calls.
        noise: Fresh noise of each step, for ancestral sampling; None for DDIM.

    Returns:
        Samples [N, *shape] at log-SNR `stop`.

    Raises:
        InputError: `steps` is not a positive integer, or guidance of a network without conditions.
    """
    require_positive_int("steps", steps)
    schedule = denoiser.schedule
    levels = torch.linspace(start, stop, steps + 1, dtype=torch.float64)
    with evaluating(denoiser):
        for step, (now, then) in enumerate(pairwise(levels)):
            level = level_like(now, x).expand(len(x))
            prediction = guided(denoiser, x, level, cond, guidance)
            x0, epsilon = (
                target.convert(prediction, x, level, schedule, denoiser.target, name)
                for name in ("x0", "epsilon")
            )
            if noise is not None:
                kept, fresh = torch.exp((now - then) / 2), torch.sqrt(-torch.expm1(now - then))
                epsilon = expand(kept, x) * epsilon + expand(fresh, x) * noise(step)
            x = expand(schedule.alpha(then), x) * x0 + expand(schedule.sigma(then), x) * epsilon
    return x
