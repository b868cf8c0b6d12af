"""What determines what is found of one network, as a text: finished parts are used for an equal one alone."""

from __future__ import annotations

import json
from typing import Any

from ntkdiag import provenance
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.kernel.sharded import tensors_of, with_values
from ntkdiag.process.paired_draws import PairedDraws

# Settings of a measurement that change its numbers, beside its configuration.
SETTINGS = ("engine", "memory", "check", "sketch")


def measurement_key(
    denoiser: Denoiser,
    data: Data,
    draws: PairedDraws,
    config: dict[str, Any],
    settings: dict[str, Any],
) -> str:
    """Versions, network with its weights, target, schedule, data, what was drawn of it, and settings, as JSON.

    Args:
        denoiser, data, draws: What is measured.
        config: What a diagnosis says of how it was measured.
        settings: `SETTINGS`, the processes that share the samples (None for this one alone), and others that are left out.
    """
    facts = _facts(denoiser, data) | {
        "drawn": provenance.digest(draws.x0, draws.epsilon),
        "conditions": {name: provenance.digest(each) for name, each in sorted(draws.cond.items())},
        "config": config,
        "settings": {name: settings[name] for name in SETTINGS},
        "processes": 1 if settings["processes"] is None else settings["processes"].count,
    }
    return json.dumps(facts, sort_keys=True, default=str)


def load_check_key(denoiser: Denoiser, data: Data, made: dict[str, Any]) -> str:
    """Versions, network with its weights, target, schedule, time, data and conditions, as JSON.

    Args:
        denoiser, data: What is checked.
        made: How the network was made.
    """
    conditions = {name: provenance.digest(each) for name, each in sorted(data.conditions.items())}
    time_name = denoiser.reading.call.time_name
    facts = _facts(denoiser, data) | {"conditions": conditions, "time": time_name, "made": made}
    return json.dumps(facts, sort_keys=True, default=str)


def _facts(denoiser: Denoiser, data: Data) -> dict[str, Any]:
    """What is common to all keys."""
    state = tensors_of(denoiser.network)
    parameter = next(denoiser.parameters())
    return {
        "versions": provenance.versions(),
        "network": type(denoiser.network).__qualname__,
        "names": list(state),
        "weights": provenance.digest_of(with_values(denoiser.network, state)),
        "place": f"{parameter.device.type} {parameter.dtype}",
        "target": denoiser.target,
        "schedule": denoiser.schedule.describe(),
        "data": data.digest,
    }
