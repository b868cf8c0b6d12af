"""Is a wrong shift of a flow's time seen? A shift may mean two things, and only one of them is in the network."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from analysis.foreign.families import FLOW, Diffusers
from analysis.foreign.networks import pictures, trained
from ntkdiag.adapters import CheckDraws, check_load
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.kernel import gram
from ntkdiag.process import schedules

# The load check of one network under schedulers of several shifts is compared at these log-SNR, on the same draws.
LEVELS = (-2.0, 0.0, 2.0)


def stated(network: nn.Module, shift: float) -> Denoiser:
    """The network beside a scheduler of diffusers with this shift."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return Denoiser.from_diffusers(Diffusers(network), FlowMatchEulerDiscreteScheduler(shift=shift))


def of_density(density: float, shift: float, seed: int) -> dict[str, Any]:
    """A network whose noise levels were drawn with one shift, and that gets 1000 σ; its scheduler states another."""
    path = schedules.flow(shift=density, time_scale=1000.0)
    network = trained(path, "flow", path.time, 1000.0, seed=seed)
    draws = CheckDraws.draw(pictures(), FLOW)
    draws = CheckDraws(draws.x0, draws.epsilon, torch.tensor(LEVELS, dtype=torch.float64))
    one, other = (stated(network, each) for each in (density, shift))
    errors = [check_load(each.reading, draws).error for each in (one, other)]
    kernels = [gram(each, pictures()[:4], 0.5, probes=2, check=False).matrix for each in (one, other)]
    return {
        "the shift says": "how often a noise level is trained", "true": density, "stated": shift, "seed": seed,
        "error, true": errors[0], "error, stated": errors[1], "caught": False,
        "kernel_difference": float((kernels[0] - kernels[1]).abs().max() / kernels[0].abs().max()),
    }  # fmt: skip


def of_time(shift: float, seed: int) -> dict[str, Any]:
    """A network that gets a shifted time beside a scheduler that states none: caught if refused with that shift named."""

    def shifted(log_snr: Tensor) -> Tensor:
        t = FLOW.time(log_snr)
        return 1000 * shift * t / (1 + (shift - 1) * t)

    network = trained(FLOW, "flow", shifted, 1000.0, seed=seed)
    wrong = stated(network, 1.0)
    draws = CheckDraws.draw(pictures(), wrong.schedule)
    row = {"the shift says": "which time the network gets", "true": shift, "stated": 1.0, "seed": seed}
    try:
        found = check_load(wrong.reading, draws)
    except InputError as error:
        assert f"shifted by {shift:.2g}" in str(error), error
        return row | {"caught": True}
    return row | {"error, stated": found.error, "error, true": found.closest[1], "caught": False}


def study(seeds: int) -> pd.DataFrame:
    """A row a network and statement."""
    rows = [of_density(density, shift, 0) for density, shift in ((1.0, 3.0), (3.0, 1.0), (1.0, 6.0))]
    rows += [of_time(shift, seed) for shift in (3.0, 1 / 3) for seed in range(seeds)]
    return pd.DataFrame(rows)
