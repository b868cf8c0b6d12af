"""The history of a run and of its refreshed weights as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ntkdiag.process.buckets import Buckets
from ntkdiag.weights.source import WeightSource

# What is measured in a refresh, at each of its noise levels.
_SERIES = ("log_snr", "score", "weight")


def history_table(rows: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """The history, a row for each of `rows`."""
    return pd.DataFrame(rows).astype({"step": "int64"})


@torch.no_grad()
def weights_in_force(weights: WeightSource | None, buckets: Buckets, like: Tensor) -> dict[str, float]:
    """The weight at the centre of each bucket, as columns of the history; none for constant weights.

    Args:
        weights: As they are now.
        buckets: Those of the history.
        like: A tensor on the device of the losses.
    """
    if weights is None:
        return {}
    centres = torch.tensor(buckets.centers, dtype=torch.float64, device=like.device)
    values = weights(centres).tolist()
    return {f"weight_bucket_{index}": float(value) for index, value in enumerate(values)}


def refreshes_table(state: Mapping[str, Any]) -> pd.DataFrame | None:
    """Every refresh in the state of loss weights, a row for each noise level; None for weights without any.

    Args:
        state: `state_dict()` of the weights.

    Returns:
        Columns step, accepted, reason, cause, cost (in steps), log_snr, score, weight; the last three are empty where
        nothing was measured, the weight where it was not taken.
    """
    records = state.get("history")
    if not isinstance(records, list) or not records:
        return None
    rows = []
    for record in records:
        fixed = {name: value for name, value in record.items() if name not in _SERIES}
        for place in range(max(1, len(record["log_snr"]))):
            series = {name: record[name][place] if place < len(record[name]) else None for name in _SERIES}
            rows.append(fixed | series)
    return pd.DataFrame(rows)
