"""Weights from a measurement: more effort where the target can be recovered from the noisy input."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

import pandas as pd
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights.measured.score_to_weight import ScoreToWeight
from ntkdiag.weights.measured.scores import amplitudes, column
from ntkdiag.weights.measured.smooth import smooth
from ntkdiag.weights.tables.weight_table import WeightTable

# What the table's meta keeps of the diagnosis it came from.
_ORIGIN = ("environment", "config", "data", "network", "bayes_source")


class Measurement(Protocol):
    """What is read of a diagnosis."""

    @property
    def summary(self) -> pd.DataFrame:
        """A row a bucket."""

    @property
    def meta(self) -> dict[str, Any]:
        """How it was measured; `meta["config"]["target"]` is the target."""


def measured(
    diagnosis: Measurement,
    score: str = "bayes",
    power: float = 1.0,
    floor: float = 0.05,
    cap: float | None = None,
    schedule: Schedule | None = None,
    bandwidth: float = 0.0,
) -> WeightTable:
    """A weight table from a diagnosis, weight ∝ amplitude^power.

    A score that is a share of variance or energy has the amplitude √share: weight ∝ (√share)^power = share^(power/2).

    Args:
        diagnosis: A `Diagnosis`, or anything with its `summary` and `meta`.
        score: "amplitude" (closed form); "bayes" (recoverable share of the target's variance; a lower 95%
            bound of it where the posterior is not known, as the diagnosis' `bayes_source` then says);
            "learnability" (share of the target in the kernel's strong directions); "gsnr" (gradient
            signal-to-noise ratio, taken as the signal's share of gradient energy); "contamination" (one
            minus the share of gradient energy that is Bayes noise; the data's posterior must be known); or a product
            such as "bayes*gsnr".
        power, floor, cap: See `ScoreToWeight`.
        schedule: With it the table has mean 1 under its density; without, about 1 over the buckets.
        bandwidth: Smoothing over log-SNR, in its units; see `smooth`. It comes after floor and cap.

    Returns:
        A table on the buckets' log-SNR, with low and high where the summary has finite intervals of the
        score, or of one factor of a product. Its meta lists the buckets the floor raised, the cap lowered, and
        those whose estimate was outside its possible range (a negative share, a contamination above 1), the
        bandwidth, and the factors without an interval, which were taken as exact.

    Raises:
        InputError: unknown score, a missing column or target, or a score that is not finite (the bucket
            is named).
    """
    shape = ScoreToWeight(power, floor, cap)
    summary = _in_order(diagnosis.summary)
    found = amplitudes(summary, score)
    log_snr = column(summary, "log_snr")
    mean = shape.mean(found.value)
    relative = shape.relative(found.value, mean)
    weight = shape.weight(found.value, mean)

    def finished(amplitude: Tensor | None) -> Tensor | None:
        return None if amplitude is None else smooth(log_snr, shape.weight(amplitude, mean), bandwidth)

    table = WeightTable(
        log_snr=log_snr,
        weight=smooth(log_snr, weight, bandwidth),
        target=_target(diagnosis),
        name=f"measured {score}",
        low=finished(found.low),
        high=finished(found.high),
        meta={
            "source": "measured",
            "score": score,
            **asdict(shape),
            "bandwidth": float(bandwidth),
            "raised_to_floor": _buckets(summary, relative < weight),
            "lowered_to_cap": _buckets(summary, relative > weight),
            "out_of_range": _buckets(summary, found.out_of_range),
            "taken_as_exact": list(found.exact),
            "diagnosis": {key: diagnosis.meta[key] for key in _ORIGIN if key in diagnosis.meta},
        },
    )
    return table if schedule is None else table.normalised(schedule)


def _in_order(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary in order of log-SNR."""
    for name in ("bucket", "log_snr"):
        column(summary, name)
    return summary.sort_values("log_snr")


def _target(diagnosis: Measurement) -> str:
    config = diagnosis.meta.get("config")
    if not isinstance(config, dict) or "target" not in config:
        raise InputError("meta of the diagnosis", expected="config.target", got=sorted(diagnosis.meta))
    target: str = config["target"]
    return target


def _buckets(summary: pd.DataFrame, mask: Tensor) -> list[int]:
    return [int(bucket) for bucket, hit in zip(summary["bucket"], mask.tolist(), strict=True) if hit]
