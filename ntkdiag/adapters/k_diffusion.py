"""Models of k-diffusion: wrappers D(x, σ, **conditions) around a network, whatever that network predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.adapters.edm import sigma_data_of
from ntkdiag.adapters.preconditioning import network_inside
from ntkdiag.adapters.reading import Calling, Reading, first_channels, require_module, sigma_of
from ntkdiag.errors import InputError
from ntkdiag.process.log_snr import expand, widen
from ntkdiag.process.schedules.continuous import EDM
from ntkdiag.process.schedules.discrete import LogSNRTable


def k_diffusion(
    model: Any, sigma_data: float | None = None, p_mean: float = -1.2, p_std: float = 1.2
) -> Reading:
    """The reading of a wrapper of k-diffusion; see `Denoiser.from_k_diffusion`."""
    module = require_module("model", model)
    if getattr(module, "inner_model", None) is None:
        raise InputError(
            "model",
            expected="a wrapper of k-diffusion, with an inner_model",
            got=type(module).__name__,
            fix="Networks without one are read by from_edm, or by Denoiser(...) itself.",
        )
    sigmas = getattr(module, "sigmas", None)
    if isinstance(sigmas, Tensor) and not hasattr(module, "sigma_data"):
        return _of_epsilon(module, sigmas)
    own = sigma_data_of(module, sigma_data)
    call = Calling(
        _invoke,
        sigma_of,
        "σ",
        convert=network_inside(own),
        output_target="x0",
        arguments={"label": "class_cond"},
    )
    return Reading(module, EDM(own, p_mean, p_std), "F", call)


def _of_epsilon(module: nn.Module, sigmas: Tensor) -> Reading:
    """A wrapper with a list of noise levels, increasing, around a network of DDPM that predicts ε = (x − D)/σ."""
    levels = -2 * sigmas.detach().cpu().double().log()
    schedule = LogSNRTable(tuple(levels.tolist()))

    def exploding(log_snr: Tensor) -> Tensor:
        """From the variance-preserving path to x0 + σ ε."""
        return torch.hypot(torch.ones_like(log_snr), sigma_of(log_snr))

    def to_epsilon(denoised: Tensor, x: Tensor, log_snr: Tensor) -> Tensor:
        level = widen(log_snr)
        return (x * expand(exploding(level), x) - denoised) / expand(sigma_of(level), x)

    call = Calling(
        _invoke,
        sigma_of,
        "σ",
        scale=exploding,
        convert=to_epsilon,
        output_target="x0",
        arguments={"label": "class_cond"},
    )
    return Reading(module, schedule, "epsilon", call)


def _invoke(model: nn.Module, x: Tensor, sigma: Tensor, cond: Mapping[str, Any]) -> Tensor:
    return first_channels(model(x, sigma, **cond), x)
