"""What a scheduler object of the diffusers library says: its schedule, its unit of time, what its network predicts.

Only attributes are read, so the library is not imported and any object with the same attributes will do. Where a scheduler
has both timesteps and sigmas, they must fit the unit of time that its other attributes point to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.continuous import EDM, Cosine, Flow
from ntkdiag.process.schedules.discrete import LogSNRTable

_LOOKED_FOR = (
    "a scheduler with `alphas_cumprod` (variance preserving), `config.sigma_data` (EDM, consistency models, TrigFlow), "
    "or `sigmas` all within [0, 1] (flow matching)"
)
_NAME_IT = "Name the schedule yourself: ntkdiag.schedules.from_table(log_snr), flow() or edm()."

# Times of published networks in units of ln σ: EDM's c_noise, and that of consistency models.
_LOGARITHMS = (0.25, 250.0)
# Multistep schedulers of flow matching cut their timesteps to whole numbers.
_CUT = 1.0
# What rounding in float32 leaves of an equality.
_ROUNDING = 1e-4


def from_diffusers(scheduler: Any) -> Schedule:
    """The schedule that a scheduler of the diffusers library is configured for.

    Args:
        scheduler: Recognised by, in this order: a `prediction_type` of "trigflow" → the cosine path, with data and noise in
            units of `sigma_data`; a config that says flow (`use_flow_sigmas`, or a `prediction_type` of
            "flow_prediction") → rectified flow; `timestep_type` "continuous" with v-prediction → EDM of `sigma_data`
            1; `alphas_cumprod`, or their roots → a table; `config.sigma_data` → EDM with the training density of
            Karras et al. 2022, since the scheduler has none; `sigmas` within [0, 1] → rectified flow. The `shift` of
            a flow is read unless the config makes it depend on the image size.

    Returns:
        The schedule. Its time counts as the scheduler's timesteps do: steps of a table; 1000 t of a flow
        (`num_train_timesteps` t); ln(s)/4 of EDM; 250 ln s of consistency models; the angle of TrigFlow. `alphas_cumprod` is
        read now: if the script rescales its betas, call this afterwards. `predicted` says what its network predicts by its
        `prediction_type`, and a `Denoiser` refuses another target.

    Raises:
        InputError: none of these was found, their values are out of range, or the scheduler's timesteps count in another
            unit than its sigmas say.

    Example:
        >>> from types import SimpleNamespace
        >>> from_diffusers(SimpleNamespace(alphas_cumprod=[0.9, 0.5, 0.1])).name
        'from_table'
    """
    schedule = _process(scheduler)
    return replace(schedule, predicted=_predicted(schedule, prediction_type(scheduler)))


def prediction_type(scheduler: Any) -> str | None:
    """What the scheduler's network predicts, as its config spells it; None if the config does not say."""
    name: str | None = _get(getattr(scheduler, "config", None), "prediction_type")
    return name


def _predicted(schedule: Schedule, prediction: str | None) -> tuple[str, ...]:
    """The targets that a network with this `prediction_type` can have; none where it is not one of a known meaning.

    Schedulers of EDM precondition: their "epsilon" network predicts F, their "v_prediction" network −F, which is v for
    σ_d = 1 and else no target, and their scripts bring either to x0.
    """
    if isinstance(schedule, EDM):
        v = ("v",) if schedule.sigma_data == 1.0 else ()
        return {"epsilon": ("F", "x0"), "v_prediction": (*v, "x0")}.get(str(prediction), ())
    plain = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}
    return (plain[prediction],) if prediction in plain else ()


def _process(scheduler: Any) -> Schedule:
    config = getattr(scheduler, "config", None)
    prediction = _get(config, "prediction_type")
    if prediction == "trigflow":
        return Cosine(time_scale=math.pi / 2)
    if _get(config, "use_flow_sigmas") or prediction == "flow_prediction":
        return _flow(scheduler)
    if _get(config, "timestep_type") == "continuous" and prediction == "v_prediction":
        return EDM(sigma_data=1.0, time_scale=_logarithm(scheduler))
    alphas_cumprod = _alphas_cumprod(scheduler)
    if alphas_cumprod is not None:
        return _table(scheduler, alphas_cumprod)
    if _get(config, "sigma_data") is not None:
        return EDM(sigma_data=float(_get(config, "sigma_data")), time_scale=_logarithm(scheduler))
    sigmas = _sigmas(scheduler)
    if sigmas is not None and _within_unit_interval(sigmas):
        return _flow(scheduler)
    raise InputError("scheduler", expected=_LOOKED_FOR, got=type(scheduler).__name__, fix=_NAME_IT)


def _flow(scheduler: Any) -> Schedule:
    """Rectified flow, counted from 0 to `num_train_timesteps` (1000 by default), which the timesteps must confirm."""
    config = getattr(scheduler, "config", None)
    scale = float(_get(config, "num_train_timesteps") or 1000)
    times, sigmas = _pairs(scheduler)
    # Multistep schedulers keep the sigmas of their betas until they are asked for steps.
    if _within_unit_interval(sigmas) and ((times - scale * sigmas).abs() > _CUT + _ROUNDING * scale).any():
        raise _other_unit(scheduler, f"{scale:g} times its sigmas (flow matching)", times)
    return Flow(shift=_shift(config), time_scale=scale)


def _logarithm(scheduler: Any) -> float:
    """The number k of timesteps k ln σ; EDM's ¼ for a scheduler without timesteps.

    Raises:
        InputError: the timesteps are no such logarithms.
    """
    times, sigmas = _pairs(scheduler)
    positive = sigmas > 0
    times, logarithms = times[positive], sigmas[positive].log()
    for scale in _LOGARITHMS:
        if bool(((times - scale * logarithms).abs() <= _ROUNDING * scale * (1 + logarithms.abs())).all()):
            return scale
    raise _other_unit(
        scheduler, "ln(sigma)/4 (EDM) or 250 ln(sigma) (consistency models) of its sigmas", times
    )


def _alphas_cumprod(scheduler: Any) -> Tensor | None:
    """ᾱ of every step, float64; None if the scheduler has neither it nor its root."""
    for name, power in (("alphas_cumprod", 1), ("sqrt_alphas_cumprod", 2)):
        if getattr(scheduler, name, None) is not None:
            return _values(f"scheduler {name}", getattr(scheduler, name)) ** power
    return None


def _table(scheduler: Any, alpha_bar: Tensor) -> Schedule:
    """The discrete schedule of these ᾱ: log-SNR = ln ᾱ − ln(1 − ᾱ), in double precision, −inf where ᾱ = 0."""
    if alpha_bar.numel() == 0 or not bool(((alpha_bar >= 0) & (alpha_bar < 1)).all()):
        raise InputError(
            "scheduler alphas_cumprod",
            expected="values in [0, 1)",
            got=f"{alpha_bar.numel()} values" + _range(alpha_bar),
            fix="Values in half precision round to 1: build the scheduler in float32.",
        )
    times = _times(scheduler)
    # An offset may lead one step beyond either end.
    if times is not None and bool(((times < -1) | (times > alpha_bar.numel())).any()):
        raise _other_unit(scheduler, f"steps of its {alpha_bar.numel()} alphas_cumprod", times)
    return LogSNRTable(tuple((torch.log(alpha_bar) - torch.log1p(-alpha_bar)).tolist()))


def _other_unit(scheduler: Any, unit: str, times: Tensor) -> InputError:
    return InputError(
        f"timesteps of {type(scheduler).__name__}",
        expected=unit,
        got=f"{times.numel()} of another unit" + _range(times),
        fix=_NAME_IT,
    )


def _pairs(scheduler: Any) -> tuple[Tensor, Tensor]:
    """Timesteps and the sigmas that stand beside them, [n] each; n = 0 where the scheduler lacks one of them."""
    times, sigmas = _times(scheduler), _sigmas(scheduler)
    if times is None or sigmas is None:
        return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    count = min(times.numel(), sigmas.numel())
    return times[:count], sigmas[:count]


def _times(scheduler: Any) -> Tensor | None:
    times = getattr(scheduler, "timesteps", None)
    return None if times is None else _values("scheduler timesteps", times)


def _sigmas(scheduler: Any) -> Tensor | None:
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None:
        sigmas = _get(getattr(scheduler, "config", None), "sigmas")
    return None if sigmas is None else _values("scheduler sigmas", sigmas)


def _shift(config: Any) -> float:
    """Shift of the flow's time towards noise; 1 if there is none, or if it depends on the image size."""
    if _get(config, "use_dynamic_shifting"):
        return 1.0
    # SD3-like schedulers call it `shift`, multistep ones `flow_shift`.
    for name in ("shift", "flow_shift"):
        if _get(config, name) is not None:
            return float(_get(config, name))
    return 1.0


def _get(config: Any, name: str) -> Any:
    """An entry of a config, which is a mapping in diffusers and may be another object elsewhere."""
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _values(what: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(values, dtype=torch.float64, device="cpu").flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(what, expected="a list of numbers", got=type(values).__name__) from error


def _within_unit_interval(values: Tensor) -> bool:
    return values.numel() > 0 and bool(((values >= 0) & (values <= 1)).all())


def _range(values: Tensor) -> str:
    return f" from {values.min():.6g} to {values.max():.6g}" if values.numel() else ""
