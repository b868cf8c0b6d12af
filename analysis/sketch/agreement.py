"""Does a sketch give the statistics of the exact kernel? The demo's network, the same samples and probes, both engines."""

from __future__ import annotations

from typing import Any

import numpy as np

import ntkdiag as nd

# Columns of a diagnosis' summary that have an interval and come from the kernel of the outputs or of the residuals.
STATISTICS = (
    "trace",
    "top_eigenvalue",
    "effective_rank",
    "participation_ratio",
    "participation_ratio_pairs",
    "shared_share",
    "centred_trace",
    "centred_top_eigenvalue",
    "centred_effective_rank",
    "centred_participation_ratio_pairs",
    "gsnr",
)


def compared(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per statistic, over all buckets.

    Columns:
        buckets: Buckets in which the exact engine gives the statistic an interval.
        inside: Those in which the sketch's value lies within it.
        difference: Largest difference of the two values, in half widths of the exact interval.
        width: Geometric mean of the ratio of the widths of the two intervals, the sketch's over the exact one's.
    """
    data = nd.data.load("digits")
    denoiser = nd.Denoiser(
        nd.models.build("dit", data.shape, seed=0, **config["network"]), nd.schedules.cosine(), "v"
    )
    training = nd.train.TrainConfig.preset("digits", steps=config["steps"], batch=config["batch"])
    nd.train.train(denoiser, data, None, training)
    sizes = {"samples": config["samples"], "probes": config["probes"]}
    exact = nd.measure(denoiser, data, config["buckets"], **sizes).summary
    sketch = nd.measure(
        denoiser, data, config["buckets"], engine="sketch", sketch=config["k"], **sizes
    ).summary
    return [row(name, exact, sketch) for name in STATISTICS]


def row(name: str, exact: Any, sketch: Any) -> dict[str, Any]:
    """What `compared` says of one statistic."""
    value, low, high = (exact[f"{name}{end}"].to_numpy() for end in ("", "_low", "_high"))
    other, other_low, other_high = (sketch[f"{name}{end}"].to_numpy() for end in ("", "_low", "_high"))
    known = np.isfinite(low) & np.isfinite(high) & (high > low) & np.isfinite(other_high - other_low)
    inside = known & (other >= low) & (other <= high)
    half = (high - low)[known] / 2
    widths = (other_high - other_low)[known] / (high - low)[known]
    return {
        "statistic": name,
        "buckets": int(known.sum()),
        "inside": int(inside.sum()),
        "difference": float(np.max(np.abs(other - value)[known] / half, initial=0.0)),
        "width": float(np.exp(np.log(widths[widths > 0]).mean())) if (widths > 0).any() else float("nan"),
    }
