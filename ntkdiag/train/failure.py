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
        interval: Steps that are remembered.
        batch: Samples in a step.
        device: Where the losses are.
    """

    def __init__(self, interval: int, batch: int, device: torch.device) -> None:
        self._drawn = torch.full((interval, batch), -1, device=device)
        self._log_snr = torch.zeros(interval, batch, dtype=torch.float64, device=device)
        self._losses = torch.zeros(interval, batch, device=device)

    def add(self, place: int, batch: Batch, losses: Tensor) -> None:
        """Remember a step.

        Args:
            place: Number of the step since the last row of the history.
            batch: Its samples.
            losses: Weighted losses [N].
        """
        if batch.drawn is not None:
            self._drawn[place] = batch.drawn
        self._log_snr[place] = batch.log_snr
        self._losses[place] = losses.detach()

    def tensors(self, place: int) -> dict[str, Tensor]:
        """What is remembered of a step: drawn, log_snr, weighted_losses, each [N], on the CPU."""
        rows = {"drawn": self._drawn, "log_snr": self._log_snr, "weighted_losses": self._losses}
        return {name: rows[name][place].cpu() for name in rows}


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
