"""U-ViT (Bao et al. 2023): network(x, n, y) → ε, with steps n counted from 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ntkdiag.adapters.dit import labels_of, null_label_of, null_of
from ntkdiag.adapters.reading import Calling, Reading, first_channels, require_module
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.discrete import ScaledLinearBeta


def uvit(network: Any, schedule: Schedule | None = None, null_label: int | None = None) -> Reading:
    """The reading of a U-ViT; see `Denoiser.from_uvit`."""
    module = require_module("network", network)
    path = ScaledLinearBeta() if schedule is None else schedule
    classes = null_label_of(module, "label_emb.num_embeddings", None)
    label = null_label if classes is None or null_label is not None else classes - 1

    def from_one(log_snr: Tensor) -> Tensor:
        return path.time(log_snr) + 1

    call = Calling(
        _invoke,
        from_one,
        "steps from 1",
        arguments={"label": "y"},
        null=null_of(label),
        defaults=labels_of(label),
    )
    return Reading(module, path, "epsilon", call)


def _invoke(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    return first_channels(network(x, time, **cond), x)
