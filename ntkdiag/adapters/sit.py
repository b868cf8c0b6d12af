"""SiT (Ma et al. 2024): velocity of x_t = t x0 + (1 − t) ε, whose time runs from noise to data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ntkdiag.adapters.dit import invoke_with_label, labels_of, null_label_of, null_of
from ntkdiag.adapters.reading import Calling, Reading, require_module
from ntkdiag.process.schedules.continuous import Flow


def sit(network: Any, null_label: int | None = None) -> Reading:
    """The reading of a SiT with linear path and velocity prediction; see `Denoiser.from_sit`."""
    module = require_module("network", network)
    label = null_label_of(module, "y_embedder.num_classes", null_label)
    call = Calling(
        invoke_with_label,
        _time_from_noise,
        "1 − t",
        sign=-1.0,
        arguments={"label": "y"},
        null=null_of(label),
        defaults=labels_of(label),
    )
    return Reading(module, Flow(), "flow", call)


def _time_from_noise(log_snr: Tensor) -> Tensor:
    """α of the straight path: 0 at noise, 1 at data."""
    return torch.sigmoid(log_snr / 2)
