"""Weights from a measurement: more effort where the target can be recovered from the noisy input.

The ERD weight is proportional to a root-mean-square amplitude. A score that is a share of variance or
of energy therefore enters as its square root, so that all scores are on the amplitude's scale and
`power=1` means the same for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.process.schedule import Schedule
from ntkdiag.weights.shape import Shape
from ntkdiag.weights.table import WeightTable

# What the table's meta keeps of the diagnosis it came from.
_ORIGIN = ("config", "data", "network", "bayes_source")


class Measurement(Protocol):
    """What is read of a diagnosis."""

    @property
    def summary(self) -> pd.DataFrame:
        """A row a bucket."""

    @property
    def meta(self) -> dict[str, Any]:
        """How it was measured; `meta["config"]["target"]` is the target."""


@dataclass(frozen=True)
class Score:
    """A column of a diagnosis' summary, and how it becomes an amplitude ≥ 0."""

    column: str
    amplitude: Callable[[Tensor], Tensor]


def amplitude_of_share(share: Tensor) -> Tensor:
    """√ρ for a share ρ of variance or energy; an estimate below zero counts as zero."""
    return share.clamp(min=0).sqrt()


def amplitude_of_ratio(ratio: Tensor) -> Tensor:
    """√(g/(1 + g)) for a signal-to-noise ratio g: the root of the signal's share of all energy."""
    signal = ratio.clamp(min=0)
    return amplitude_of_share(signal / (1 + signal))


SCORES = {
    "amplitude": Score("amplitude", lambda amplitude: amplitude.clamp(min=0)),
    "bayes": Score("bayes_share", amplitude_of_share),
    "learnability": Score("learnability", amplitude_of_share),
    "gsnr": Score("gsnr", amplitude_of_ratio),
}


def measured(
    diagnosis: Measurement,
    score: str = "bayes",
    power: float = 1.0,
    floor: float = 0.05,
    cap: float | None = None,
    schedule: Schedule | None = None,
) -> WeightTable:
    """A weight table from a diagnosis, weight ∝ amplitude^power.

    Args:
        diagnosis: A `Diagnosis`, or anything with its `summary` and `meta`.
        score: "amplitude" (closed form), "bayes" (recoverable share of the target's variance),
            "learnability" (share of the target in the kernel's strong directions) or "gsnr" (gradient
            signal-to-noise ratio, taken as the signal's share of gradient energy).
        power, floor, cap: See `Shape`.
        schedule: With it the table has mean 1 under its density; without, about 1 over the buckets.

    Returns:
        A table on the buckets' log-SNR, with low and high where the summary has finite intervals of the
        score. Its meta lists the buckets the floor raised, the cap lowered, and where the score was
        negative.

    Raises:
        InputError: unknown score, a missing column or target, or a score that is not finite (the bucket
            is named).
    """
    shape = Shape(power, floor, cap)
    chosen = SCORES[require_one_of("score", score, SCORES)]
    summary = _summary(diagnosis, chosen.column)
    raw = _finite_scores(summary, score, chosen.column)
    amplitude = chosen.amplitude(raw)
    mean = shape.mean(amplitude)
    relative = shape.relative(amplitude, mean)
    weight = shape.weight(amplitude, mean)
    low, high = (
        None if bound is None else shape.weight(chosen.amplitude(bound), mean)
        for bound in _interval(summary, chosen.column)
    )
    table = WeightTable(
        log_snr=_column(summary, "log_snr"),
        weight=weight,
        target=_target(diagnosis),
        name=f"measured {score}",
        low=low,
        high=high,
        meta={
            "source": "measured",
            "score": score,
            **asdict(shape),
            "raised_to_floor": _buckets(summary, relative < weight),
            "lowered_to_cap": _buckets(summary, relative > weight),
            "negative_score": _buckets(summary, raw < 0),
            "diagnosis": {key: diagnosis.meta[key] for key in _ORIGIN if key in diagnosis.meta},
        },
    )
    return table if schedule is None else table.normalised(schedule)


def _summary(diagnosis: Measurement, column: str) -> pd.DataFrame:
    """The summary in order of log-SNR."""
    summary = diagnosis.summary
    for name in ("bucket", "log_snr", column):
        if name not in summary.columns:
            raise InputError(
                "summary of the diagnosis", expected=f"a column '{name}'", got=list(summary.columns)
            )
    return summary.sort_values("log_snr")


def _finite_scores(summary: pd.DataFrame, score: str, column: str) -> Tensor:
    values = _column(summary, column)
    for bucket in _buckets(summary, ~torch.isfinite(values)):
        got = summary.loc[summary["bucket"] == bucket, column].iloc[0]
        raise InputError(
            f"score '{score}' of bucket {bucket}",
            expected="a finite number",
            got=got,
            fix="Measure again with more samples, or use score='amplitude', which needs none.",
        )
    return values


def _interval(summary: pd.DataFrame, column: str) -> tuple[Tensor | None, Tensor | None]:
    """Lower and upper ends of the score, or nothing where there are none or some are not finite."""
    if f"{column}_low" not in summary.columns or f"{column}_high" not in summary.columns:
        return None, None
    low, high = _column(summary, f"{column}_low"), _column(summary, f"{column}_high")
    return (low, high) if torch.isfinite(low + high).all() else (None, None)


def _target(diagnosis: Measurement) -> str:
    config = diagnosis.meta.get("config")
    if not isinstance(config, dict) or "target" not in config:
        raise InputError("meta of the diagnosis", expected="config.target", got=sorted(diagnosis.meta))
    return config["target"]


def _buckets(summary: pd.DataFrame, mask: Tensor) -> list[int]:
    return [int(bucket) for bucket, hit in zip(summary["bucket"], mask.tolist(), strict=True) if hit]


def _column(summary: pd.DataFrame, name: str) -> Tensor:
    return torch.tensor(summary[name].to_numpy(dtype=float), dtype=torch.float64)
