"""Facebook's DiT (Peebles & Xie 2023): network(x, step, label) → ε, and a learned variance that is cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.adapters.reading import Calling, Reading, first_channels, require_module
from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.discrete import LinearBeta


def dit(network: Any, schedule: Schedule | None = None, null_label: int | None = None) -> Reading:
    """The reading of a DiT; see `Denoiser.from_dit`."""
    module = require_module("network", network)
    path = LinearBeta() if schedule is None else schedule
    label = null_label_of(module, "y_embedder.num_classes", null_label)
    call = Calling(
        invoke_with_label,
        path.time,
        "the schedule's steps",
        arguments={"label": "y"},
        null=null_of(label),
        defaults=labels_of(label),
    )
    return Reading(module, path, "epsilon", call)


def null_label_of(network: nn.Module, where: str, given: int | None) -> int | None:
    """The label that stands for no class: as it is given, or the number that an attribute of the network has.

    Args:
        network: The network.
        where: The attribute, with dots.
        given: What the user says; None for the attribute.

    Returns:
        None where neither says it.
    """
    if given is not None:
        return given
    found: Any = network
    for name in where.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, int) else None


def null_of(label: int | None) -> dict[str, int]:
    """The condition that stands for none, where it is known."""
    return {} if label is None else {"label": label}


def labels_of(label: int | None) -> Callable[[Tensor], Mapping[str, Any]]:
    """The default condition: the null label for every sample."""

    def defaults(x: Tensor) -> Mapping[str, Any]:
        return {} if label is None else {"y": torch.full((len(x),), label, device=x.device)}

    return defaults


def invoke_with_label(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    """network(x, time, y)."""
    if "y" not in cond:
        raise InputError(
            "cond",
            expected="a label y for each sample",
            got="none, and the network does not say its null label",
            fix="Give {null_label}, or y in cond.",
            arguments={"null_label": 1000},
        )
    return first_channels(network(x, time, **cond), x)
