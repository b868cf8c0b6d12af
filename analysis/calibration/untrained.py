"""How often is an untrained network said to have learned something? Each is compared with controls that are as fresh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import ntkdiag as nd
from ntkdiag.claims.effects import SHOWN, effect_values
from ntkdiag.claims.ends import ENDS
from ntkdiag.confidence import quantile


def effects_of(seed: int, data: nd.data.Data, config: dict[str, Any]) -> dict[tuple[str, str], float]:
    network = nd.models.build("mlp", data.shape, seed=seed, width=32, depth=2)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    buckets = nd.Buckets.uniform(-9, 9, count=config["buckets"])
    found = nd.measure(
        denoiser, data, buckets, samples=config["samples"], probes=config["probes"], check=False
    )
    return effect_values(
        found.summary["log_snr"].to_numpy(), found.grams["trace"], found.grams.get("per_probe")
    )


def learned(config: dict[str, Any]) -> pd.DataFrame:
    """Share of fresh networks, in %, whose effect lies outside the band of as fresh controls; a row a statistic."""
    data = nd.data.load("mixture")
    found = [effects_of(seed, data, config) for seed in range(config["networks"])]
    rows = []
    for name in SHOWN:
        outside = [
            _outside(own[name, end], [found[other][name, end] for other in _others(place, config)])
            for place, own in enumerate(found)
            for end in ENDS
        ]
        rows.append({"statistic": name, "learned": 100 * float(np.mean(outside)), "tests": len(outside)})
    return pd.DataFrame(rows)


def _outside(effect: float, controls: list[float]) -> bool:
    """Whether an effect lies outside the 95% prediction interval of the controls."""
    count = len(controls)
    reach = quantile(0.95, count - 1) * float(np.std(controls, ddof=1)) * np.sqrt(1 + 1 / count)
    return bool(abs(effect - np.mean(controls)) > reach)


def _others(place: int, config: dict[str, Any]) -> list[int]:
    """The networks that follow in the list, round its end: no two networks have the same controls."""
    return [(place + 1 + k) % config["networks"] for k in range(config["controls"])]
