"""A step whose loss or gradient is not finite: which samples at which noise levels, and the state that is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ntkdiag.process.buckets import Buckets
from ntkdiag.train.checkpoints.checkpoint import write_tensors
from ntkdiag.train.loss import Batch

# Most samples that a message names.
_NAMED = 8


class RecentSteps:
    """Samples, log-SNR and weighted losses of the last steps, on the device until someone asks.

    Args:
        batch: Samples in a step.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        # Place → the samples' numbers, log-SNR and losses.
        self._steps: dict[int, tuple[Tensor | None, Tensor, Tensor]] = {}

    def add(self, place: int, batch: Batch, losses: Tensor) -> None:
        """Remember a step.

        Args:
            place: Number of the step since the last row of the history.
            batch: Its samples.
            losses: Weighted losses [N].
        """
        self._steps[place] = batch.drawn, batch.log_snr, losses

    def tensors(self, place: int) -> dict[str, Tensor]:
        """What is remembered of a step: drawn, log_snr, weighted_losses, each [N], on the CPU; −1 and 0 where nothing is."""
        none = torch.zeros(self._batch)
        drawn, log_snr, losses = self._steps.get(place, (None, none, none))
        if drawn is None:
            drawn = torch.full((self._batch,), -1)
        rows = {"drawn": drawn, "log_snr": log_snr.double(), "weighted_losses": losses.float()}
        return {name: row.cpu() for name, row in rows.items()}


def described(step: Mapping[str, Tensor], buckets: Buckets) -> str:
    """Which losses of a step are not finite, in a sentence.

    Args:
        step: As `RecentSteps.tensors` gives it.
        buckets: Those of the history.
    """
    bad = ~torch.isfinite(step["weighted_losses"])
    count = int(bad.sum())
    if count == 0:
        return "The loss of every sample is finite, the gradient is not."
    named = ", ".join(str(number) for number in step["drawn"][bad][:_NAMED].tolist())
    more = ", ..." if count > _NAMED else ""
    found = sorted(set(buckets.assign(step["log_snr"][bad]).tolist()))
    places = ", ".join(_bucket(buckets, place) for place in found)
    return f"It is that of {count} of {len(bad)} samples, number {named}{more} of the training data, in {places}."


def _bucket(buckets: Buckets, place: int) -> str:
    if place < 0:
        return "no bucket"
    low, high = buckets.edges[place : place + 2]
    return f"bucket {place} (log-SNR {low:.3g} to {high:.3g})"


def save_failure(folder: Path, number: int, state: Mapping[str, Tensor], step: Mapping[str, Tensor]) -> Path:
    """Write what is known of a failed step into the run's folder, and return the file.

    Args:
        folder: Of the run.
        number: Of the step.
        state: Tensors of the training state, as `TrainState.tensors` gives them.
        step: Tensors of the step, which are stored as step.NAME.

    Raises:
        InputError: the file cannot be written.
    """
    path = folder / f"failed-{number:08d}.safetensors"
    tensors = {name: value for name, value in state.items() if not name.startswith("meter.")}
    tensors |= {f"step.{name}": value.detach().cpu().contiguous() for name, value in step.items()}
    write_tensors(path, tensors)
    return path
