"""What a scheduler of diffusers says of the network beside it: path, target, time, sign and scale of the input.

Only attributes are read, so the library is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ntkdiag.adapters.diffusers.calls import invocation
from ntkdiag.adapters.preconditioning import input_factor
from ntkdiag.adapters.reading import Calling, OfLevel, Reading, require_module
from ntkdiag.errors import InputError, require_one_of
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.continuous import EDM, Flow
from ntkdiag.process.schedules.diffusers_scheduler import from_diffusers, prediction_type
from ntkdiag.process.target import target_name

TIMESTEPS = ("continuous", "integer")


def diffusers_reading(
    model: Any,
    scheduler: Any,
    target: str | None = None,
    timesteps: str = "continuous",
    guidance: float | None = None,
) -> Reading:
    """The reading of a model of diffusers with its scheduler; see `Denoiser.from_diffusers`."""
    module = require_module("model", model)
    require_one_of("timesteps", timesteps, TIMESTEPS)
    schedule = from_diffusers(scheduler)
    wanted, sign = _target(schedule, prediction_type(scheduler), target)
    times, time_name = _time(schedule)
    if _entry(scheduler, "invert_sigmas"):
        times, sign, time_name = _inverted(schedule), -sign, f"{time_name}, counted from noise"
    how = invocation(module, guidance)
    if how.flipped:
        times, sign, time_name = _inverted(schedule), -sign, "1 − t"
    unit = how.time_unit
    call = Calling(
        how.invoke,
        times if unit == 1.0 else _scaled(times, unit),
        time_name if unit == 1.0 else "t",
        scale=input_factor(schedule.sigma_data) if isinstance(schedule, EDM) else None,
        sign=sign,
        arguments=how.arguments,
        null=how.null,
        defaults=how.defaults,
        whole_times=timesteps == "integer",
    )
    return Reading(module, replace(schedule, predicted=()), wanted, call)


def _target(schedule: Schedule, prediction: str | None, given: str | None) -> tuple[str, float]:
    """The target and the sign by which the output becomes it.

    EDM's schedulers precondition: their "epsilon" is F, their "v_prediction" is −F. A flow without a prediction type is
    ε − x0.
    """
    if isinstance(schedule, EDM) and prediction == "v_prediction":
        own, sign = ("v", 1.0) if schedule.sigma_data == 1.0 else ("F", -1.0)
    elif isinstance(schedule, EDM) and prediction == "epsilon":
        own, sign = "F", 1.0
    elif len(schedule.predicted) == 1:
        own, sign = schedule.predicted[0], 1.0
    elif isinstance(schedule, Flow):
        own, sign = "flow", 1.0
    elif given is not None:
        return target_name(given), 1.0
    else:
        raise InputError(
            "target",
            expected="what the network predicts, since the scheduler's prediction_type does not say it",
            got=repr(prediction),
            fix="Give {target}.",
            arguments={"target": "epsilon"},
        )
    if given is not None and target_name(given) != own:
        raise InputError(
            "target",
            expected=f"{own}, as the scheduler's prediction_type {prediction!r} says, or nothing",
            got=given,
        )
    return own, sign


def _time(schedule: Schedule) -> tuple[OfLevel, str]:
    """The scheduler's own time, and its name."""
    if isinstance(schedule, EDM):
        # Schedulers of EDM without timesteps that say another unit count ln(σ)/4.
        scale = 0.25 if schedule.time_scale is None else schedule.time_scale
        return EDM(schedule.sigma_data, time_scale=scale).time, f"{scale:g} ln σ"
    if schedule.discrete:
        return schedule.time, f"steps 0…{schedule.time_range[1]:g}"
    last = schedule.time_range[1]
    return schedule.time, "t" if last == 1.0 else f"{last:g} t"


def _inverted(schedule: Schedule) -> OfLevel:
    last = schedule.time_range[1]

    def time(log_snr: Tensor) -> Tensor:
        return last - schedule.time(log_snr)

    return time


def _scaled(times: OfLevel, unit: float) -> OfLevel:
    def time(log_snr: Tensor) -> Tensor:
        return times(log_snr) * unit

    return time


def _entry(scheduler: Any, name: str) -> Any:
    config = getattr(scheduler, "config", None)
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
