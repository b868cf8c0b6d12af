"""What the noise levels with the highest floor take of the loss and of the gradient, as training sees them.

The floor is the part of the loss that no training removes. Where it is high, most of the loss and of the gradient is noise.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ntkdiag.claims.description.rulers import schedule_of
from ntkdiag.diagnosis.result import Diagnosis
from ntkdiag.spectra import Replicates, interval_from_replicates
from ntkdiag.spectra.dense.eigen import Array

COLUMNS = ("quantity", "share", "low", "high", "draws", "levels")


def floor_shares(diagnosis: Diagnosis, kept: NDArray[np.bool_] | None = None) -> pd.DataFrame:
    """Share of the loss and of the gradient energy that the third of the buckets with the highest floor takes.

    Buckets count as often as training draws them; where the schedule is not known, equally.

    Args:
        diagnosis: What was measured.
        kept: Which of its buckets to take, [B]; all if None.

    Returns:
        Rows "loss" and "gradient energy" with columns share, low and high (90% interval over samples), draws (the share of
        training's draws that these buckets get), levels (their log-SNR). No rows where some bucket's floor is not known.
    """
    places = np.arange(len(diagnosis.summary)) if kept is None else np.flatnonzero(kept)
    summary = diagnosis.summary.iloc[places]
    floor = summary["floor"].to_numpy(dtype=float) if "floor" in summary else np.full(len(places), np.nan)
    if not np.isfinite(floor).all() or len(places) < 3:
        return pd.DataFrame(columns=list(COLUMNS))
    highest = np.argsort(-floor, kind="stable")[: round(len(places) / 3)]
    mass = _draws(diagnosis, summary)
    levels = ", ".join(f"{level:.3g}" for level in np.sort(summary["log_snr"].to_numpy(dtype=float)[highest]))
    rows = []
    for quantity, values in _per_sample(diagnosis).items():
        weighted = values[places] * mass[:, None]
        share, low, high = _ratio(weighted[highest].sum(0), weighted.sum(0))
        rows.append((quantity, share, low, high, float(mass[highest].sum()), levels))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _per_sample(diagnosis: Diagnosis) -> dict[str, Array]:
    """Loss and gradient energy of each sample in each bucket, [B, N], as far as they were kept."""
    buckets = len(diagnosis.summary)
    found = {}
    if "losses" in diagnosis.grams:
        found["loss"] = diagnosis.grams["losses"].numpy()
    found["gradient energy"] = diagnosis.grams["residual"].diagonal().reshape(buckets, -1).numpy()
    return found


def _draws(diagnosis: Diagnosis, summary: pd.DataFrame) -> Array:
    """How often training draws each bucket, as shares of all of them."""
    schedule = schedule_of(diagnosis)
    if schedule is None or "log_snr_low" not in summary:
        return np.full(len(summary), 1 / len(summary))
    ends = [torch.tensor(summary[f"log_snr_{end}"].tolist(), dtype=torch.float64) for end in ("low", "high")]
    mass = (schedule.cdf(ends[1]) - schedule.cdf(ends[0])).numpy()
    total = float(mass.sum())
    shares: Array = mass / total if total > 0 else np.full(len(summary), 1 / len(summary))
    return shares


def _ratio(part: Array, whole: Array) -> tuple[float, float, float]:
    """Ratio of the means of pairs, with its 90% jackknife interval."""
    if not whole.sum() > 0:
        return (float("nan"),) * 3
    value = float(part.sum() / whole.sum())
    if len(part) < 4:
        return value, float("nan"), float("nan")
    others = (part.sum() - part) / (whole.sum() - whole)
    found = interval_from_replicates(Replicates(value, others), samples=len(part), minimum=0.0, maximum=1.0)
    return value, found.low, found.high
