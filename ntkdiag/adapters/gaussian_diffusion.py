"""Networks inside lucidrains' GaussianDiffusion: its buffers have the betas, and its `objective` says the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ntkdiag.adapters.reading import Calling, Reading, first_channels, require_module
from ntkdiag.errors import InputError, require_one_of
from ntkdiag.process.schedules.diffusers_scheduler import from_diffusers

_OBJECTIVES = {"pred_noise": "epsilon", "pred_x0": "x0", "pred_v": "v"}


def gaussian_diffusion(process: Any) -> Reading:
    """The reading of the network inside a GaussianDiffusion; see `Denoiser.from_gaussian_diffusion`."""
    module = require_module("process", process)
    for name in ("model", "objective", "alphas_cumprod"):
        if getattr(module, name, None) is None:
            raise InputError(
                "process",
                expected="a GaussianDiffusion with model, objective and alphas_cumprod",
                got=f"{type(module).__name__} without {name}",
            )
    objective = require_one_of("objective of the process", str(module.objective), _OBJECTIVES)
    network = require_module("model of the process", module.model)
    schedule = from_diffusers(module)
    steps = f"steps 0…{schedule.time_range[1]:g}"
    call = Calling(_invoke, schedule.time, steps, arguments={"label": "classes"})
    return Reading(network, schedule, _OBJECTIVES[objective], call)


def _invoke(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    return first_channels(network(x, time, **cond), x)
