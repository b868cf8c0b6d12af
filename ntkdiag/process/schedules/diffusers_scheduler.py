"""What a scheduler object of the diffusers library says: its schedule, its unit of time, what its network predicts.

Only attributes are read, so the library is not imported and any object with the same attributes will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.continuous import EDM, Flow
from ntkdiag.process.schedules.discrete import LogSNRTable

_LOOKED_FOR = (
    "a scheduler with `alphas_cumprod` (variance preserving), `config.sigma_data` (EDM), "
    "or `sigmas` all within [0, 1] (flow matching)"
)


def from_diffusers(scheduler: Any) -> Schedule:
    """The schedule that a scheduler of the diffusers library is configured for.

    Args:
        scheduler: Recognised by, in this order: a config that says flow (`use_flow_sigmas`, or a
            `prediction_type` of "flow_prediction") → rectified flow; `alphas_cumprod` → a table;
            `config.sigma_data` → EDM with the training density of Karras et al. 2022, since the
            scheduler has none; `sigmas` within [0, 1] → rectified flow. The `shift` of a flow is read
            unless the config makes it depend on the image size.

    Returns:
        The schedule. `alphas_cumprod` is read now: if the script rescales its betas, call this afterwards.

    Raises:
        InputError: none of these was found, or their values are out of range.

    Example:
        >>> from types import SimpleNamespace
        >>> from_diffusers(SimpleNamespace(alphas_cumprod=[0.9, 0.5, 0.1])).name
        'from_table'
    """
    config = getattr(scheduler, "config", None)
    if _get(config, "use_flow_sigmas") or _get(config, "prediction_type") == "flow_prediction":
        return Flow(shift=_shift(config))
    if getattr(scheduler, "alphas_cumprod", None) is not None:
        return _table(scheduler.alphas_cumprod)
    if _get(config, "sigma_data") is not None:
        return EDM(sigma_data=float(_get(config, "sigma_data")))
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None:
        sigmas = _get(config, "sigmas")
    if sigmas is not None and _within_unit_interval(_values("scheduler sigmas", sigmas)):
        return Flow(shift=_shift(config))
    raise InputError(
        "scheduler",
        expected=_LOOKED_FOR,
        got=type(scheduler).__name__,
        fix="Name the schedule yourself: ntkdiag.schedules.from_table(log_snr), flow() or edm().",
    )


def prediction_type(scheduler: Any) -> str | None:
    """What the scheduler's network predicts, as its config spells it; None if the config does not say."""
    name: str | None = _get(getattr(scheduler, "config", None), "prediction_type")
    return name


def timestep_of_pure_noise(scheduler: Any) -> float:
    """The timestep by which a flow-matching scheduler means t = 1: `num_train_timesteps`, 1000 by default."""
    return float(_get(getattr(scheduler, "config", None), "num_train_timesteps") or 1000)


def _table(alphas_cumprod: Any) -> Schedule:
    """The discrete schedule with these ᾱ: log-SNR = ln ᾱ − ln(1 − ᾱ), in double precision, −inf where ᾱ = 0."""
    alpha_bar = _values("scheduler alphas_cumprod", alphas_cumprod)
    if alpha_bar.numel() == 0 or not bool(((alpha_bar >= 0) & (alpha_bar < 1)).all()):
        raise InputError(
            "scheduler alphas_cumprod",
            expected="values in [0, 1)",
            got=f"{alpha_bar.numel()} values" + _range(alpha_bar),
            fix="Values in half precision round to 1: build the scheduler in float32.",
        )
    return LogSNRTable(tuple((torch.log(alpha_bar) - torch.log1p(-alpha_bar)).tolist()))


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
