"""Rulers: what the effective rank might follow over log-SNR, and how closely it does, by rank correlation.

A description, not a test: two smooth curves over ten noise levels often correlate by themselves, and on the cosine schedule
the amplitude of v is the training density (R_v = 4.44 p). Only networks of several targets or densities can part rulers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ntkdiag.claims.ends import CLEAN, ENDS, NOISY, contrast
from ntkdiag.claims.simultaneous import error_shares
from ntkdiag.claims.words import CANNOT_SAY, word
from ntkdiag.confidence import quantile
from ntkdiag.diagnosis.result import Diagnosis
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.spectra import Replicates
from ntkdiag.spectra.dense.eigen import Array

COLUMNS = ("ruler", "statistic", "tau", "low", "high", "noisy", "clean", "note")
FOLLOWERS = ("effective_rank", "centred_effective_rank")
LEVEL = 0.9
# Values closer than this share of the largest are ties: those of mirrored buckets may differ by rounding.
TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Ruler:
    """Something that the rank might follow.

    Attributes:
        name: In words.
        values: One number ≥ 0 a bucket, [B].
        note: What a reader must know of it.
    """

    name: str
    values: Array
    note: str = ""


def rulers_of(diagnosis: Diagnosis, kept: NDArray[np.bool_] | None = None) -> list[Ruler]:
    """The rulers of a diagnosis, the recoverable share first.

    Args:
        diagnosis: What was measured.
        kept: Which of its buckets to take, [B]; all if None.
    """
    summary = diagnosis.summary if kept is None else diagnosis.summary[kept]
    levels = summary["log_snr"].to_numpy(dtype=float)
    schedule, target = schedule_of(diagnosis), str(diagnosis.meta["config"]["target"])
    exact = "excess" in summary and bool(np.isfinite(summary["excess"].to_numpy(dtype=float)).any())
    found = []
    if "bayes_share" in summary:
        note = "" if exact else "a lower bound of the share"
        found.append(Ruler("recoverable share", summary["bayes_share"].to_numpy(dtype=float), note))
    found.append(Ruler("amplitude", summary["amplitude"].to_numpy(dtype=float)))
    found.append(Ruler("signal-to-noise ratio", np.exp(levels), "the noise level itself"))
    if schedule is not None:
        found.append(_density(schedule, levels, target))
    shares = 1 / (1 + np.exp(-levels))
    found.append(Ruler("share of x0 in the input", shares, "rises with the SNR, so τ is the same"))
    if "input_effective_rank" in summary:
        ranks = summary["input_effective_rank"].to_numpy(dtype=float)
        found.append(Ruler("rank of the inputs", ranks, "untrained networks follow it"))
    return found


def ruler_table(
    diagnosis: Diagnosis, replicates: dict[str, list[Replicates]], samples: int, kept: NDArray[np.bool_]
) -> pd.DataFrame:
    """How closely ranks follow each ruler, and at which ends each ruler would have them fall.

    Args:
        diagnosis: What was measured.
        replicates: Statistic → its values in the kept buckets, on all samples and without parts of them.
        samples: N.
        kept: Which buckets of the diagnosis these are, [B].

    Returns:
        Columns ruler, statistic, tau (Kendall's τ_b with ln of the statistic over buckets), low and high (90% interval over
        samples and probes), noisy and clean (what the statistic would do at each end if it followed the ruler), note.
    """
    rows = []
    levels = diagnosis.summary.loc[kept, "log_snr"].to_numpy(dtype=float)
    for ruler in rulers_of(diagnosis, kept):
        predicted = {end: _predicted(ruler.values, contrast(levels, end)) for end in ENDS}
        for name in FOLLOWERS:
            if name in replicates:
                tau, low, high = follows(replicates[name], ruler.values, samples)
                rows.append(
                    (ruler.name, name, tau, low, high, predicted[NOISY], predicted[CLEAN], ruler.note)
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def follows(buckets: Sequence[Replicates], ruler: Array, samples: int) -> tuple[float, float, float]:
    """Kendall's τ between ln of a statistic and a ruler, with a 90% interval.

    τ counts pairs of buckets, and it jumps when two change places, so it has no standard error. For each pair the jackknife
    says whether its order is known (by 1.64 standard errors of the difference). The interval goes from the τ in which all
    pairs of unknown order speak against the ruler to the one in which all speak for it.

    Args:
        buckets: The statistic in every bucket, on all samples and without the same parts of them.
        ruler: [B].
        samples: N.

    Returns:
        τ, low, high; NaN where a logarithm does not exist, or the ruler has no number.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log([bucket.value for bucket in buckets])
        scaled = [
            Replicates(
                float(np.log(one.value)),
                np.log(one.without_samples),
                None if one.without_probe is None else np.log(one.without_probe),
            )
            for one in buckets
        ]
        errors = np.stack([error_shares(one, samples) for one in scaled])
    if not (np.isfinite(logs).all() and np.isfinite(errors).all() and np.isfinite(ruler).all()):
        return (float("nan"),) * 3
    value = float(kendall(ruler, logs))
    first, second = np.triu_indices(len(logs), 1)
    sizes = np.linalg.norm(errors[first] - errors[second], axis=1)
    known = np.abs(logs[first] - logs[second]) > quantile(LEVEL) * sizes
    for_ruler = _sign(ruler, first, second)
    agreement = np.where(known, for_ruler * np.sign(logs[first] - logs[second]), 0.0).sum()
    open_pairs = np.abs(np.where(known, 0.0, for_ruler)).sum()
    most = float(np.sqrt(np.square(for_ruler).sum() * len(first)))
    if most == 0:  # the ruler is constant
        return value, value, value
    low, high = (agreement - open_pairs) / most, (agreement + open_pairs) / most
    return value, min(float(low), value), max(float(high), value)


def kendall(a: Array, b: Array) -> Array:
    """Kendall's τ_b (1945) between `a` [B] and each row of `b` [..., B], in [−1, 1]; 0 where either is constant."""
    first, second = np.triu_indices(a.shape[-1], 1)
    sign_a = _sign(a, first, second)
    sign_b = _sign(b, first, second)
    untied = np.sqrt(np.square(sign_a).sum(-1) * np.square(sign_b).sum(-1))
    agreement = (sign_a * sign_b).sum(-1)
    statistic: Array = np.divide(agreement, untied, out=np.zeros_like(agreement), where=untied > 0)
    return statistic


def schedule_of(diagnosis: Diagnosis) -> Schedule | None:
    """The schedule that a diagnosis was measured on, from its record; None if the record is not enough."""
    described = dict(diagnosis.meta["config"].get("schedule") or {})
    try:
        return schedules.named(described.pop("name", ""), **described)
    except (InputError, TypeError):
        return None


def _density(schedule: Schedule, levels: Array, target: str) -> Ruler:
    density = schedule.density(torch.tensor(levels.tolist(), dtype=torch.float64)).numpy()
    same = target == "v" and schedule.name == "cosine"
    return Ruler("training density", density, "on this schedule, the amplitude: R_v = 4.44 p" if same else "")


def _predicted(values: Array, weights: Array) -> str:
    """What a statistic that followed a ruler would do at an end; an end of share 0 against more than 0 is a fall."""
    with np.errstate(divide="ignore", invalid="ignore"):
        middle, at_end = weights > 0, weights < 0
        effect = float(np.log(values[middle]) @ weights[middle] + np.log(values[at_end]) @ weights[at_end])
    return CANNOT_SAY if np.isnan(effect) else word(effect, effect)


def _sign(values: Array, first: NDArray[np.intp], second: NDArray[np.intp]) -> Array:
    tolerance = TIE * np.abs(values).max(-1, keepdims=True)
    difference = values[..., first] - values[..., second]
    return np.where(np.abs(difference) <= tolerance, 0.0, np.sign(difference))
