"""Weights from a measurement: more effort where the target can be recovered from the noisy input."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Protocol

import pandas as pd
from torch import Tensor

from ntkdiag.errors import InputError, kind_of, require_number
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.discrete import without_steps
from ntkdiag.weights.measured.score_to_weight import ScoreToWeight
from ntkdiag.weights.measured.scores import amplitudes, column
from ntkdiag.weights.measured.smooth import smooth
from ntkdiag.weights.tables.weight_table import WeightTable

# By how much a weight may be uncertain, as a share of it, before a table is refused: tuned here.
PRECISION = 0.5
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
    precision: float | None = PRECISION,
) -> WeightTable:
    """A weight table from a diagnosis, weight ∝ amplitude^power.

    A score that is a share of variance or energy has the amplitude √share: weight ∝ (√share)^power = share^(power/2).

    Args:
        diagnosis: A `Diagnosis`, or anything with its `summary` and `meta`.
        score: "amplitude" (closed form); "bayes" (recoverable share of the target's variance; a lower 95%
            bound of it where the posterior is not known, as the diagnosis' `bayes_source` then says);
            "learnability" (share of the target in the kernel's strong directions); "gsnr" (gradient
            signal-to-noise ratio, taken as the signal's share of gradient energy); "gain" (fall of the objective for the
            gradient noise, `ntkdiag.recoverability.gradient_gain`: a weight, so its amplitude is the gain itself);
            "contamination" (one
            minus the share of gradient energy that is Bayes noise; the data's posterior must be known); or a product
            such as "bayes*gsnr".
        power, floor, cap: See `ScoreToWeight`.
        schedule: With it the table has mean 1 under its density; without, about 1 over the buckets.
        bandwidth: Smoothing over log-SNR, in its units; see `smooth`. It comes after floor and cap.
        precision: Largest half-width of a weight's interval, as a share of the weight (of the mean weight where that is
            larger), with which a table is made; None or infinity for any. Scores without intervals are not judged.

    Returns:
        A table on the buckets' log-SNR, with low and high where the summary has finite intervals of the
        score, or of one factor of a product; they include the error of the mean over buckets. Its meta lists the
        buckets the floor raised, the cap lowered, and those whose estimate was outside its possible range (a negative
        share, a contamination above 1), the bandwidth, the factors without an interval, which were taken as exact, and
        the buckets at noise levels that the network never saw in training.

    Raises:
        InputError: unknown score, a missing column or target, a score that is not finite (the bucket
            is named), or one that is known too badly to be a weight (the number of samples that would do is named).

    Example:
        >>> table = nd.weights.measured(diagnosis, score="amplitude", schedule=nd.schedules.cosine())
        >>> table.target, len(table.log_snr)
        ('v', 4)
    """
    shape = ScoreToWeight(power, floor, cap)
    if not hasattr(diagnosis, "summary"):
        raise InputError(
            "diagnosis",
            expected="a Diagnosis, as nd.measure gives it",
            got=kind_of(diagnosis),
            fix="Measure a network with nd.measure, or read a folder with nd.Diagnosis.load.",
        )
    summary = _in_order(diagnosis.summary)
    found = amplitudes(summary, score)
    log_snr = column(summary, "log_snr")
    mean = shape.mean(found.value)
    relative = shape.relative(found.value, mean)
    weight = shape.weight(found.value, mean)

    limits = None
    if found.low is not None and found.high is not None:
        limits = shape.interval(found.value, found.low, found.high)
        if precision is not None and precision != math.inf:
            _require_precise(diagnosis, score, log_snr, weight, limits, precision)

    def finished(limit: Tensor) -> Tensor:
        return smooth(log_snr, limit, bandwidth)

    table = WeightTable(
        log_snr=log_snr,
        weight=smooth(log_snr, weight, bandwidth),
        target=_target(diagnosis),
        name=f"measured {score}",
        low=None if limits is None else finished(limits[0]),
        high=None if limits is None else finished(limits[1]),
        meta={
            "source": "measured",
            "score": score,
            **asdict(shape),
            "bandwidth": float(bandwidth),
            "raised_to_floor": _buckets(summary, relative < weight),
            "lowered_to_cap": _buckets(summary, relative > weight),
            "out_of_range": _buckets(summary, found.out_of_range),
            "taken_as_exact": list(found.exact),
            "precision": None if precision == math.inf else precision,
            "extrapolated": _extrapolated(summary),
            "diagnosis": _origin(diagnosis.meta),
        },
    )
    return table if schedule is None else table.normalised(schedule)


def _require_precise(
    diagnosis: Measurement,
    score: str,
    log_snr: Tensor,
    weight: Tensor,
    limits: tuple[Tensor, Tensor],
    precision: float,
) -> None:
    """Refuse weights whose intervals are wider than the precision asked for.

    Raises:
        InputError: such a weight, or a precision that is not positive.
    """
    require_number("precision", precision, above=0)
    half = (limits[1] - limits[0]) / 2 / weight.clamp(min=1.0)
    worst = int(half.argmax())
    if half[worst] <= precision:
        return
    samples = diagnosis.meta.get("config", {}).get("samples")
    enough = f"about {_two_digits(samples * float(half[worst] / precision) ** 2)}" if samples else "more"
    raise InputError(
        f"score '{score}' as a weight",
        expected=f"weights known to ±{precision:.0%}",
        got=f"±{float(half[worst]):.0%} at log-SNR {float(log_snr[worst]):g}"
        + (f", from {samples} samples" if samples else ""),
        fix=f"Measure with {enough} samples a bucket, choose {{score}}, or accept wider intervals with {{precision}}.",
        arguments={"score": "'bayes'", "precision": None},
    )


def _two_digits(number: float) -> int:
    """Rounded up to two leading digits."""
    unit = 10.0 ** max(int(math.log10(number)) - 1, 0)
    return int(math.ceil(number / unit) * unit)


def _origin(meta: dict[str, Any]) -> dict[str, Any]:
    """What is kept of the diagnosis; of its schedule without the steps, which the weights do not need."""
    kept = {key: meta[key] for key in _ORIGIN if key in meta}
    schedule = kept.get("config", {}).get("schedule")
    if isinstance(schedule, dict):
        kept["config"] = {**kept["config"], "schedule": without_steps(schedule)}
    return kept


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


def _extrapolated(summary: pd.DataFrame) -> list[int]:
    if "extrapolated" not in summary:
        return []
    return [int(bucket) for bucket in summary.loc[summary["extrapolated"].astype(bool), "bucket"]]


def _buckets(summary: pd.DataFrame, mask: Tensor) -> list[int]:
    return [int(bucket) for bucket, hit in zip(summary["bucket"], mask.tolist(), strict=True) if hit]
