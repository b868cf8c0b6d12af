"""The reference trainer: a denoiser, data and loss weights in; averaged weights and a history out.

It is handed the weights as a function of log-SNR and never asks where they come from. The history reports
the unweighted loss of every noise level, since one average hides all that this package is about.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.modes import in_mode
from ntkdiag.process.buckets import Buckets
from ntkdiag.train.checkpoints.run_folder import Progress, RunFolder, describe_problem
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.interrupt import held_interrupt
from ntkdiag.train.loss import denoising_losses, draw_batch
from ntkdiag.train.state import TrainState
from ntkdiag.weights.source import WeightSource

# (steps done, steps in all, mean unweighted loss since the last call)
Report = Callable[[int, int, float], None]

_BUCKETS = 10


@dataclass(frozen=True)
class TrainResult:
    """What training leaves.

    Attributes:
        denoiser: The moving average of the weights, a copy: the one to sample from and to measure.
        history: A row per `log_every` steps, means since the row before: step, loss (unweighted),
            weighted_loss, grad_norm (before clipping), loss_bucket_0 ... (unweighted, NaN where no sample
            fell), seconds (of training, since its start).
        buckets: The noise levels of the history's columns.
        config: The settings.
        step: Steps done.
    """

    denoiser: Denoiser
    history: pd.DataFrame
    buckets: Buckets
    config: TrainConfig
    step: int


def train(
    denoiser: Denoiser,
    data: Data,
    weights: WeightSource | None,
    config: TrainConfig,
    *,
    buckets: Buckets | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Report | None = None,
    notes: dict[str, Any] | None = None,
) -> TrainResult:
    """Train a denoiser, in place, on weight(log-SNR) · mean squared error of its own target.

    Equal arguments give equal bytes on one machine, and a run that was interrupted and resumed gives the
    bytes of one that was not, as long as the network draws no random numbers itself (dropout does).

    Args:
        denoiser: Trained on the device its parameters are on.
        data: Its training part is used, moved to that device and dtype.
        weights: Weights for the denoiser's target, best of mean 1 under its schedule; None for 1 everywhere.
        config: Settings.
        buckets: Noise levels of the history; ten of equal share in training if left out.
        out: Folder for checkpoints, and at the end average.safetensors and history.csv.
        resume: Go on from the checkpoint in `out`; only `steps` and `checkpoint_every` may have changed.
        force: Replace an earlier run in `out`.
        progress: Called at every row of the history.
        notes: JSON-able remarks kept in training.json.

    Returns:
        The averaged denoiser and the history.

    Raises:
        InputError: arguments that do not fit together, a folder in use, or a checkpoint of another run.
        MeasurementError: loss or gradient stopped being finite; the last checkpoint is kept.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written if `out` is given.
    """
    if weights is not None and weights.target != denoiser.target:
        raise InputError(
            "weights",
            expected=f"weights for the target the denoiser predicts, {denoiser.target}",
            got=f"weights for {weights.target}",
        )
    if resume and out is None:
        raise InputError("resume", expected="out=, the folder of the run to go on with", got="no folder")
    buckets = buckets or Buckets.from_density(denoiser.schedule, _BUCKETS)
    folder = None
    if out is not None:
        folder = RunFolder(out, config, describe_problem(denoiser, data, buckets), notes or {})
    run = _Run(TrainState(denoiser, config, buckets), data, weights, folder)
    if resume:
        run.resume()
    else:
        run.begin(force)
    with in_mode(denoiser, training=True), held_interrupt() as interrupted:
        run.go(interrupted, progress)
    history = pd.DataFrame(run.rows).astype({"step": "int64"})
    average = run.state.average.denoiser.eval()
    if folder is not None:
        folder.finish(average, history)
    return TrainResult(average, history, buckets, config, run.state.step)


class _Run:
    """One call of `train` on its way."""

    def __init__(
        self, state: TrainState, data: Data, weights: WeightSource | None, folder: RunFolder | None
    ) -> None:
        self.state, self.weights, self.folder = state, weights, folder
        self.config = state.config
        self.samples = data.train.to(next(iter(state.trained.values())))
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0

    def begin(self, force: bool) -> None:
        """Write the untrained network first: a folder that cannot be written to fails now, not in an hour."""
        if self.folder is not None:
            self.folder.clear(force)
            self.save()

    def resume(self) -> None:
        """Take up the folder's checkpoint."""
        if self.folder is not None:
            self.rows, self.seconds, weights = self.folder.load(self.state)
            if self.weights is not None:
                self.weights.load_state_dict(weights)

    def go(self, interrupted: Callable[[], bool], progress: Report | None) -> None:
        """Train to the last step; on Ctrl-C save and raise."""
        while self.state.step < self.config.steps:
            started = time.perf_counter()
            self._step()
            done = self.state.step
            last = done == self.config.steps
            row_ends = last or done % self.config.log_every == 0
            if row_ends:
                self._check()  # waits for the device, so it belongs to the time of training
            self.seconds += time.perf_counter() - started
            if row_ends:
                self._log(progress)
            stop = interrupted()
            if last or stop or done % self.config.checkpoint_every == 0:
                self.save()
            if stop:
                raise KeyboardInterrupt

    def save(self) -> None:
        """Write a checkpoint, unless what it would hold is not finite.

        Raises:
            MeasurementError: it is not.
        """
        if self.folder is not None:
            self._check()
            weights = {} if self.weights is None else self.weights.state_dict()
            self.folder.save(self.state, Progress(self.rows, self.seconds, weights))

    def _step(self) -> None:
        denoiser = self.state.denoiser
        batch = draw_batch(self.samples, denoiser.schedule, self.config.batch, self.state.generators)
        losses = denoising_losses(denoiser, batch)
        weighted = (self._weight(batch.log_snr) * losses).mean()
        norm = self.state.update(weighted)
        self.state.meter.add(batch.log_snr, losses, weighted, norm)
        if self.weights is not None:
            self.weights.after_step(self.state.step)

    @torch.no_grad()
    def _weight(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr) if self.weights is None else self.weights(log_snr)

    def _log(self, progress: Report | None) -> None:
        row = {"step": self.state.step, **self.state.meter.row(), "seconds": self.seconds}
        self.rows.append(row)
        self.state.meter.reset()
        if progress is not None:
            progress(self.state.step, self.config.steps, row["loss"])

    def _check(self) -> None:
        try:
            self.state.meter.check(self.state.step)
        except MeasurementError as error:
            if self.folder is None:
                raise
            raise MeasurementError(f"{error} The last checkpoint is kept in {self.folder.path}.") from error
