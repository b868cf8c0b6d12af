"""Networks of EDM and EDM2: D(x; σ, labels), with the preconditioning inside; F is what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ntkdiag.adapters.preconditioning import network_inside
from ntkdiag.adapters.reading import Calling, Reading, first_channels, require_module, sigma_of
from ntkdiag.errors import InputError, require_number
from ntkdiag.process.schedules.continuous import EDM


def edm(network: Any, sigma_data: float | None = None, p_mean: float = -1.2, p_std: float = 1.2) -> Reading:
    """The reading of a preconditioned network D(x, σ, class_labels=None); see `Denoiser.from_edm`."""
    module = require_module("network", network)
    own = sigma_data_of(module, sigma_data)
    call = Calling(
        _invoke,
        sigma_of,
        "σ",
        convert=network_inside(own),
        output_target="x0",
        arguments={"label": "class_labels"},
    )
    return Reading(module, EDM(own, p_mean, p_std), "F", call)


def sigma_data_of(network: nn.Module, given: float | None) -> float:
    """σ_data as the network's attribute says it, or as it is given where there is none.

    Raises:
        InputError: neither says it, or they differ.
    """
    own = getattr(network, "sigma_data", None)
    if own is None and given is None:
        raise InputError(
            "sigma_data",
            expected="the standard deviation of the data that the network was trained for",
            got=f"nothing, and {type(network).__name__} has no attribute sigma_data",
            fix="Give {sigma_data}.",
            arguments={"sigma_data": 0.5},
        )
    stated = float(own) if own is not None else require_number("sigma_data", given, above=0.0)
    if given is not None and abs(given - stated) > 1e-6 * stated:
        raise InputError("sigma_data", expected=f"{stated:g}, the network's own sigma_data", got=f"{given:g}")
    return stated


def _invoke(network: nn.Module, x: Tensor, sigma: Tensor, cond: Mapping[str, Any]) -> Tensor:
    named = dict(cond)
    labels = named.pop("class_labels", None)
    arguments = () if labels is None else (one_hot(labels, getattr(network, "label_dim", 0)),)
    return first_channels(network(x, sigma, *arguments, **named), x)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Whole-number labels [N] as rows [N, classes], if the network says how many classes it has; others as they are."""
    if labels.ndim == 1 and not labels.is_floating_point() and classes:
        return functional.one_hot(labels, classes).to(torch.float32)
    return labels
