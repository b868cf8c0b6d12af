"""The history of a training run: the loss, in the mean and by bucket, accumulated on the device between two rows.

Only `failure` and `row`, which are called once in many steps, wait for the device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ntkdiag.process.buckets import Buckets
from ntkdiag.train.loss import Batch

_SCALARS = ("loss", "weighted_loss", "grad_norm")
# The column of a run that aligns features.
ALIGN_LOSS = "align_loss"


class Failure(NamedTuple):
    """A step whose loss or gradient was not finite: its number, its place since the last row, and the numbers in words."""

    step: int
    place: int
    values: str


class Meter:
    """Sums since the last row of the history.

    Args:
        buckets: Noise levels whose losses are reported separately.
        interval: Largest number of steps between two rows.
        device: Device of the losses.
        also: Columns of other numbers of a step.
    """

    def __init__(
        self, buckets: Buckets, interval: int, device: torch.device, also: tuple[str, ...] = ()
    ) -> None:
        self.buckets = buckets
        self.names = (*_SCALARS, *also)
        self._state = {
            "scalars": torch.zeros(interval, len(self.names), device=device),
            # The last entry is for samples outside all buckets, whose index is -1.
            "sums": torch.zeros(len(buckets) + 1, device=device),
            "counts": torch.zeros(len(buckets) + 1, device=device),
        }
        self.filled = 0
        # Of steps that are not in the state yet: scalars; log-SNR, losses and counts of the samples.
        self._waiting: list[tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor | None]] = []

    @property
    def state(self) -> dict[str, Tensor]:
        """The sums, with all steps in them."""
        if self._waiting:
            scalars, level, losses, ratios = zip(*self._waiting, strict=True)
            counts = [
                torch.ones_like(loss) if ratio is None else ratio
                for loss, ratio in zip(losses, ratios, strict=True)
            ]
            rows = torch.stack([torch.stack(row) for row in scalars])
            self._state["scalars"][self.filled - len(rows) : self.filled] = rows
            place = self.buckets.assign(torch.cat(level)) % len(self._state["sums"])
            # One after the other, as if each step had been added at once.
            for name, values in (("sums", losses), ("counts", counts)):
                total = self._state[name]
                total.index_add_(0, place, torch.cat(values).to(total))
            self._waiting = []
        return self._state

    def add(self, batch: Batch, losses: Tensor, weighted: Tensor, grad_norm: Tensor, *also: Tensor) -> None:
        """Add one step.

        Args:
            batch: Its samples; where their levels were not drawn by the training density, the means are corrected for that.
            losses: Unweighted losses [N].
            weighted: Weighted mean loss.
            grad_norm: Norm of the gradient.
            also: Other numbers. None of them has a history of autograd.
        """
        if batch.ratio is not None:
            losses = losses * batch.ratio
        self._waiting.append(
            ((losses.mean(), weighted, grad_norm, *also), batch.log_snr, losses, batch.ratio)
        )
        self.filled += 1

    def failure(self, step: int) -> Failure | None:
        """The first step since the last row whose loss or gradient was not finite; None if there is none.

        Args:
            step: Number of the last step that was added.
        """
        rows = self.state["scalars"][: self.filled].tolist()
        for place, row in enumerate(rows):
            if not all(map(math.isfinite, row)):
                values = ", ".join(f"{name} {value:g}" for name, value in zip(self.names, row, strict=True))
                return Failure(step - self.filled + place + 1, place, values)
        return None

    def row(self) -> dict[str, float]:
        """Means since the last row, by column of the history; NaN for a bucket without samples."""
        scalars = self.state["scalars"][: self.filled].double().mean(dim=0).tolist()
        by_bucket = (self.state["sums"] / self.state["counts"]).tolist()[:-1]
        names = bucket_columns(self.buckets)
        return dict(zip([*self.names, *names], [*scalars, *by_bucket], strict=True))

    def reset(self) -> None:
        """Start a new row."""
        for tensor in self.state.values():
            tensor.zero_()
        self.filled = 0


def bucket_columns(buckets: Buckets) -> list[str]:
    """Names of the history's columns for the unweighted loss of each bucket."""
    return [f"loss_bucket_{index}" for index in range(len(buckets))]


def to_columns(rows: list[dict[str, float]]) -> dict[str, list[float | None]]:
    """Rows of a history as columns that JSON can hold: NaN becomes null."""
    names = list(rows[0]) if rows else []
    return {name: [None if math.isnan(row[name]) else row[name] for row in rows] for name in names}


def from_columns(columns: dict[str, list[float | None]]) -> list[dict[str, float]]:
    """The inverse of `to_columns`."""
    numbers = [[math.nan if value is None else value for value in column] for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*numbers, strict=True)]
