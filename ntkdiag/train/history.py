"""What a run reports of itself: loss as a mean and by noise level, kept on the device between rows.

Nothing here waits for the device except `check` and `row`, which are called once in many steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkdiag.errors import MeasurementError
from ntkdiag.process.buckets import Buckets

_SCALARS = ("loss", "weighted_loss", "grad_norm")


class Meter:
    """Running sums since the last row of the history.

    Args:
        buckets: Noise levels whose losses are reported apart.
        interval: Most steps between two rows.
        device: Where the losses are.
    """

    def __init__(self, buckets: Buckets, interval: int, device: torch.device) -> None:
        self.buckets = buckets
        self.state = {
            "scalars": torch.zeros(interval, len(_SCALARS), device=device),
            # One more place at the end for samples outside all buckets, which index -1 reaches.
            "sums": torch.zeros(len(buckets) + 1, device=device),
            "counts": torch.zeros(len(buckets) + 1, device=device),
        }
        self.filled = 0

    def add(self, log_snr: Tensor, losses: Tensor, weighted: Tensor, grad_norm: Tensor) -> None:
        """Take in one step: log-SNR and unweighted losses [N], the weighted mean and the gradient's norm."""
        losses = losses.detach()
        self.state["scalars"][self.filled] = torch.stack([losses.mean(), weighted.detach(), grad_norm])
        place = self.buckets.assign(log_snr) % len(self.state["sums"])
        self.state["sums"].index_add_(0, place, losses.to(self.state["sums"]))
        self.state["counts"].index_add_(0, place, torch.ones_like(losses, dtype=torch.float32))
        self.filled += 1

    def check(self, step: int) -> None:
        """Stop a run that has gone wrong.

        Args:
            step: Steps done so far.

        Raises:
            MeasurementError: loss or gradient was not finite in a step since the last row; it is named.
        """
        rows = self.state["scalars"][: self.filled].tolist()
        for offset, row in enumerate(rows):
            if not all(map(math.isfinite, row)):
                told = ", ".join(f"{name} {value:g}" for name, value in zip(_SCALARS, row, strict=True))
                raise MeasurementError(
                    f"training went wrong at step {step - self.filled + offset + 1}: {told}. "
                    "Lower learning_rate, or see whether the weights are infinite somewhere."
                )

    def row(self) -> dict[str, float]:
        """Means since the last row, by column of the history; NaN for a bucket no sample fell into."""
        scalars = self.state["scalars"][: self.filled].double().mean(dim=0).tolist()
        by_bucket = (self.state["sums"] / self.state["counts"]).tolist()[:-1]
        names = bucket_columns(self.buckets)
        return dict(zip([*_SCALARS, *names], [*scalars, *by_bucket], strict=True))

    def reset(self) -> None:
        """Begin a new row."""
        for tensor in self.state.values():
            tensor.zero_()
        self.filled = 0


def bucket_columns(buckets: Buckets) -> list[str]:
    """Names of the history's columns that hold one bucket's unweighted loss."""
    return [f"loss_bucket_{index}" for index in range(len(buckets))]


def to_columns(rows: list[dict[str, float]]) -> dict[str, list[float | None]]:
    """Rows of a history as columns that JSON can hold: NaN becomes null."""
    names = list(rows[0]) if rows else []
    return {name: [None if math.isnan(row[name]) else row[name] for row in rows] for name in names}


def from_columns(columns: dict[str, list[float | None]]) -> list[dict[str, float]]:
    """The inverse of `to_columns`."""
    numbers = [[math.nan if value is None else value for value in column] for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*numbers, strict=True)]
