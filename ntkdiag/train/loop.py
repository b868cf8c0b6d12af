"""The training loop: takes a denoiser, data and loss weights; returns the averaged network and a history.

The loss weights are a function of log-SNR. The history has the unweighted loss of every bucket, because the
mean over all noise levels hides the differences between them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntkdiag.data import Data, as_data
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.distributed import Processes, in_step
from ntkdiag.errors import InputError, MeasurementError, require_type
from ntkdiag.modes import in_mode
from ntkdiag.process.buckets import Buckets, BucketsLike
from ntkdiag.signals import deferred_interrupt
from ntkdiag.train.alignment.aligner import Aligner, fresh_aligner
from ntkdiag.train.checkpoints.run_folder import EVENTS_FOLDER, Progress, RunFolder, describe_problem
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.failure import RecentSteps, described
from ntkdiag.train.gradient import StepGradient
from ntkdiag.train.logs.pictures import grid, shown_samples
from ntkdiag.train.logs.tables import history_table, weights_in_force
from ntkdiag.train.logs.tensorboard import TensorBoard
from ntkdiag.train.loss import Batch, Generators, Labelled, draw_batch
from ntkdiag.train.noise_levels import NoiseLevels
from ntkdiag.train.result import TrainResult
from ntkdiag.train.state import TrainState
from ntkdiag.weights.source import LearnsFromLosses, WeightSource, require_weight_source

# (steps done, steps in all, mean unweighted loss since the last call)
Report = Callable[[int, int, float], None]

_BUCKETS = 10
# Devices that need not be waited for in each step.
_AT_ONCE = ("cpu",)


def train(
    denoiser: Denoiser,
    data: DataLike,
    weights: WeightSource | None,
    config: TrainConfig,
    *,
    buckets: BucketsLike | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Report | None = None,
    notes: dict[str, Any] | None = None,
    distributed: bool = False,
) -> TrainResult:
    """Train a denoiser in place on weight(log-SNR) · mean squared error of its target, plus what `align` asks for.

    On one machine, equal arguments give equal bytes, and so does a run that was interrupted and resumed, also where the
    network itself draws from torch's generators (dropout); as long as it remembers nothing from step to step but in
    parameters, buffers (those outside the state dict too) and plain tensor attributes.

    Args:
        denoiser: The network to train, on the device of its parameters.
        data: `Data`, or what `nd.data.as_data` takes; the training part is used, moved to that device and dtype. What the
            network takes as conditions comes from it.
        weights: Weights for the denoiser's target, preferably of mean 1 under its schedule; None for 1 everywhere.
        config: Settings.
        buckets: Buckets of the history, a count or edges; by default ten in which training draws equally often.
        out: Folder for checkpoints, and with each of them history.csv and, of refreshed weights, refreshes.csv; for samples
            along the way, and events where TensorBoard is installed; at the end for average.safetensors.
        resume: Continue from the checkpoint in `out`; only `steps`, `checkpoint_every`, `keep_checkpoints`,
            `keep_every` and `sample_every` may have changed.
        force: Replace an earlier run in `out`.
        progress: Called at every row of the history with (steps done, steps in all, mean unweighted loss).
        notes: JSON-able remarks that are stored in training.json.
        distributed: Share every batch out over the processes of `torch.distributed`, each on its device: every process calls
            this with the same arguments, and gets the same result. The first one alone writes to `out`, which all must see
            to resume, and reports progress. The draws are those of one process, so that losses agree with its up to
            rounding, and a run may be resumed by another number of processes; but a network that draws itself (dropout)
            draws in each process anew, and one that looks at its batch (BatchNorm) sees a share of it. Buffers are those of
            the first process.

    Returns:
        The averaged denoiser and the history.

    Raises:
        InputError: arguments that do not fit together, a folder in use, or a checkpoint of another run.
        MeasurementError: the loss or the gradient is no longer finite; the error names the step, its samples and buckets.
            The last checkpoint is kept, and the state at the failure is written beside it.
        KeyboardInterrupt: Ctrl-C, in any of the processes; if `out` is given, a checkpoint was written before.

    Example:
        >>> network = nd.models.build("mlp", (2,), width=16)
        >>> denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> config = nd.train.TrainConfig(steps=20, log_every=10)
        >>> result = nd.train.train(denoiser, nd.data.load("mixture"), None, config)
        >>> result.history["step"].tolist()
        [10, 20]
    """
    processes = Processes() if distributed else None
    with in_step(processes):
        _require_fitting(denoiser, weights, config, resume, out)
        data = as_data(data)
        if buckets is None:
            buckets = Buckets.from_density(denoiser.schedule, _BUCKETS)
        buckets = Buckets.of(buckets, denoiser.schedule)
        folder = None
        if out is not None:
            folder = RunFolder(out, config, describe_problem(denoiser, data, buckets), notes or {})
        run = _Run(denoiser, config, buckets, data, weights, folder, processes)
        if resume:
            run.resume()
        else:
            run.begin(force)
        with in_mode(denoiser, training=True), deferred_interrupt() as interrupted:
            try:
                run.train(interrupted, progress)
            finally:
                run.close()
        return run.result()


def _require_fitting(
    denoiser: Denoiser,
    weights: WeightSource | None,
    config: TrainConfig,
    resume: bool,
    out: Path | str | None,
) -> None:
    """Refuse arguments that do not fit together."""
    require_denoiser("network to train", denoiser)
    require_type("config", config, TrainConfig, "nd.train.TrainConfig(), with settings as its arguments")
    if weights is not None:
        require_weight_source(weights, denoiser.target)
    elif config.sampling == "table":
        raise InputError("sampling='table'", expected="loss weights to draw the levels by", got="none")
    if resume and out is None:
        raise InputError("resume", expected="out=, the folder of the run to continue", got="no folder")


class _Run:
    """The state and the steps of one call of `train`."""

    def __init__(
        self,
        denoiser: Denoiser,
        config: TrainConfig,
        buckets: Buckets,
        data: Data,
        weights: WeightSource | None,
        folder: RunFolder | None,
        processes: Processes | None,
    ) -> None:
        self.config, self.data, self.weights = config, data, weights
        place = next((p for p in denoiser.network.parameters() if p.requires_grad), torch.empty(0))
        self.samples = data.train.to(place)
        self.labelled = Labelled.of(denoiser, data, place, config.condition_dropout)
        drawn_by = weights if config.sampling == "table" else None
        self.levels = NoiseLevels(denoiser.schedule, config.stratified, drawn_by)
        self.state = TrainState(denoiser, config, buckets, self._aligner(denoiser, place))
        self.gradient = StepGradient(self.state, processes)
        self.stored = folder
        # Written to by the first process alone.
        self.folder = folder if self.gradient.first else None
        self.recent = RecentSteps(config.batch)
        self.events = None if self.folder is None else TensorBoard(self.folder.path / EVENTS_FOLDER, buckets)
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0

    def _aligner(self, denoiser: Denoiser, place: Tensor) -> Aligner | None:
        if not self.config.align:
            return None
        made = Generators(*(torch.Generator(place.device).manual_seed(0) for _ in range(3)))
        two = draw_batch(self.samples, denoiser.schedule, 2, made, self.labelled)
        return fresh_aligner(denoiser, self.config, two)

    def begin(self, force: bool) -> None:
        """Write a checkpoint of the untrained network, so that a folder that cannot be written to fails at once."""
        if self.state.aligner is not None:
            self.state.aligner.learn_encoder(self.data)
        self.gradient.require_alike(self.data)
        if self.folder is not None:
            self.folder.begin(self.state, self._progress(), force)

    def resume(self) -> None:
        """Continue from the checkpoint in the folder."""
        if self.stored is not None:
            self.rows, self.seconds, weights = self.stored.load(self.state)
            if self.weights is not None:
                self.weights.load_state_dict(weights)
        self.gradient.require_alike(self.data)

    def train(self, interrupted: Callable[[], bool], progress: Report | None) -> None:
        """Train to the last step; after Ctrl-C, save and raise KeyboardInterrupt."""
        while self.state.step < self.config.steps:
            started = time.perf_counter()
            self._step(interrupted)
            done = self.state.step
            last = done == self.config.steps
            row_ends = last or done % self.config.log_every == 0
            if row_ends:
                self._check()  # it waits for the device, so it counts as training time
            self.seconds += time.perf_counter() - started
            if row_ends:
                self._log(progress)
            if self.folder is not None and (last or done % (self.config.keep_every or done + 1) == 0):
                self.folder.keep(self.state)
            if self.folder is not None and done % (self.config.sample_every or done + 1) == 0:
                self._show(self.folder)
            stop = self.gradient.stop(interrupted)
            if last or stop or done % self.config.checkpoint_every == 0:
                self.save()
            if stop:
                raise KeyboardInterrupt

    def result(self) -> TrainResult:
        """The end of the run, with the averaged weights in its folder."""
        average = self.state.average.denoiser.eval()
        if self.folder is not None:
            self.folder.finish(average)
        buckets = self.state.meter.buckets
        return TrainResult(average, history_table(self.rows), buckets, self.config, self.state.step)

    def close(self) -> None:
        """End what is written along the way."""
        if self.events is not None:
            self.events.close()

    def _show(self, folder: RunFolder) -> None:
        samples = shown_samples(self.state.average.denoiser, self.data)
        folder.show(samples, self.state.step)
        pixels = grid(samples)
        if self.events is not None and pixels is not None:
            self.events.picture(pixels, self.state.step)

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            MeasurementError: the loss or the gradient is not finite; nothing is written.
        """
        if self.folder is not None:
            self._check()
            self.folder.save(self.state, self._progress())

    def _progress(self) -> Progress:
        return Progress(self.rows, self.seconds, {} if self.weights is None else self.weights.state_dict())

    def _step(self, interrupted: Callable[[], bool]) -> None:
        state = self.state
        schedule, count = state.denoiser.schedule, self.config.batch
        batch = draw_batch(self.samples, schedule, count, state.generators, self.labelled, self.levels)
        weight = self._weight(batch)
        losses, alignment = self.gradient(batch, weight, interrupted)
        each = losses if weight is None else weight * losses
        weighted, norm = each.mean(), state.clip_gradients()
        self.recent.add(state.meter.filled, batch, each)
        state.meter.add(batch, losses, weighted, norm, *alignment)
        if state.device.type in _AT_ONCE and not math.isfinite(weighted + norm):
            self._check(batch)  # before the step, which would spoil the network
        state.take_step()
        if self.weights is not None:
            if isinstance(self.weights, LearnsFromLosses):
                self.weights.observe(batch.log_snr, losses)
            self.weights.after_step(state.step)

    @torch.no_grad()
    def _weight(self, batch: Batch) -> Tensor | None:
        """How much each loss counts [N]; None for all alike."""
        if self.weights is None:
            return batch.ratio
        weight = self.weights(batch.log_snr)
        return weight if batch.ratio is None else weight * batch.ratio

    def _log(self, progress: Report | None) -> None:
        meter = self.state.meter
        weights = weights_in_force(self.weights, meter.buckets, self.samples[:1])
        row = {"step": self.state.step, **meter.row(), **weights, "seconds": self.seconds}
        self.rows.append(row)
        if self.events is not None:
            self.events.row(row)
        self.state.meter.reset()
        if progress is not None and self.gradient.first:
            progress(self.state.step, self.config.steps, row["loss"])

    def _check(self, ahead: Batch | None = None) -> None:
        """Stop if the loss or the gradient was not finite in a step since the last row.

        Args:
            ahead: The batch of a step that is not done yet.

        Raises:
            MeasurementError: it was not; the error names step, samples and buckets. The state is kept in the run's folder.
        """
        failed = self.state.meter.failure(self.state.step + (ahead is not None))
        if failed is None:
            return
        step = self.recent.tensors(failed.place)
        kept = ""
        if self.folder is not None:
            drawn = {} if ahead is None else {"x0": ahead.x0, "epsilon": ahead.epsilon}
            kept = " " + self.folder.save_failure(self.state, failed.step, step | drawn)
        raise MeasurementError(
            f"training: expected a finite loss and gradient; got {failed.values} at step {failed.step}. "
            f"{described(step, self.state.meter.buckets)} "
            f"Lower learning_rate, or check whether the loss weights are infinite at some log-SNR.{kept}"
        )
