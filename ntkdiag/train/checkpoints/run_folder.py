"""The folder of a training run: checkpoints and tables during the run, averaged weights at its end.

With `keep_every` it also keeps averaged weights along the way, with `sample_every` samples.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.conditions import described
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process.buckets import Buckets
from ntkdiag.state_dicts import save_weights
from ntkdiag.train.checkpoints.checkpoint import Manifest, read_checkpoint, tensor_file, write_checkpoint
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.failure import save_failure
from ntkdiag.train.history import from_columns, to_columns
from ntkdiag.train.logs.pictures import grid, png
from ntkdiag.train.logs.tables import history_table, refreshes_table
from ntkdiag.train.state import TrainState

AVERAGE_FILE = "average.safetensors"
HISTORY_FILE = "history.csv"
REFRESHES_FILE = "refreshes.csv"
# Samples of steps along the run, and events for TensorBoard.
SAMPLES_FOLDER = "samples"
EVENTS_FOLDER = "tensorboard"
# Averaged weights of steps along the run.
KEPT_FOLDER = "kept"
_KEPT_FILE = re.compile(r"step-(\d{8,})\.safetensors")

# Settings in which a resumed run may differ, since they change no step that was done before.
_FREE = ("steps", "checkpoint_every", "keep_checkpoints", "keep_every", "sample_every")


class Progress(NamedTuple):
    """What a checkpoint stores beside tensors: rows of the history, seconds, state of the loss weights."""

    rows: list[dict[str, float]]
    seconds: float
    weights: dict[str, Any]


class RunFolder:
    """The folder of one training run.

    Args:
        path: The folder.
        config: Settings of the run.
        problem: Data, schedule, target and buckets; see `describe_problem`.
        notes: JSON-able remarks that are stored in training.json.
    """

    def __init__(
        self, path: Path | str, config: TrainConfig, problem: dict[str, Any], notes: dict[str, Any]
    ) -> None:
        self.path = Path(path)
        self.config = config
        self.problem = problem
        self.notes = notes

    def begin(self, state: TrainState, progress: Progress, force: bool) -> None:
        """Make the folder, with a first checkpoint in it; an earlier run stays if that cannot be written.

        Raises:
            InputError: it is in use, holds an earlier run and `force` is off, or cannot be written to.
        """
        with provenance.run_folder(self.path, force) as building:
            self._write(building, state, progress)
            self._keep(building, state)

    def keep(self, state: TrainState) -> None:
        """Keep the averaged weights of this step, if the settings ask for any."""
        self._keep(self.path, state)

    def _keep(self, folder: Path, state: TrainState) -> None:
        if self.config.keep_every:
            kept = _made(folder / KEPT_FOLDER)
            save_weights(state.average.denoiser, kept / f"step-{state.step:08d}.safetensors")

    def show(self, samples: Tensor, step: int) -> None:
        """Write samples of a step, and a picture of them if they are pictures."""
        shown = _made(self.path / SAMPLES_FOLDER)
        buffer = io.BytesIO()
        np.save(buffer, samples.numpy())
        provenance.write_bytes(shown / f"step-{step:08d}.npy", buffer.getvalue())
        pixels = grid(samples)
        if pixels is not None:
            provenance.write_bytes(shown / f"step-{step:08d}.png", png(pixels))

    def save(self, state: TrainState, progress: Progress) -> None:
        """Write a checkpoint of this state, and the tables so far."""
        self._write(self.path, state, progress)
        if progress.rows:
            provenance.write_text(self.path / HISTORY_FILE, history_table(progress.rows).to_csv(index=False))
        refreshes = refreshes_table(progress.weights)
        if refreshes is not None:
            provenance.write_text(self.path / REFRESHES_FILE, refreshes.to_csv(index=False))

    def _write(self, folder: Path, state: TrainState, progress: Progress) -> None:
        manifest = Manifest(
            step=state.step,
            tensors=tensor_file(state.step),
            config=asdict(self.config),
            problem=self.problem,
            history=to_columns(progress.rows),
            filled=state.meter.filled,
            seconds=progress.seconds,
            weights=progress.weights,
            environment=provenance.environment(state.device),
            notes=self.notes,
        )
        write_checkpoint(folder, manifest, state.tensors(), self.config.keep_checkpoints)

    def save_failure(self, state: TrainState, number: int, step: Mapping[str, Tensor]) -> str:
        """Write the state and the samples of a step that failed, see `ntkdiag.train.failure`; returns where, in a sentence.

        A disk without room for them does not hide the failure: the sentence says so.
        """
        last = f"The last checkpoint is kept in {self.path}"
        try:
            file = save_failure(self.path, number, state.tensors(), step)
        except InputError as error:
            return f"{last}; the state at the failure could not be: {error}"
        return f"{last}, the state at the failure in {file.name}."

    def load(self, state: TrainState) -> Progress:
        """Restore a state from the checkpoint.

        Raises:
            InputError: there is no checkpoint, it is damaged, or it belongs to another run.
        """
        manifest, tensors = read_checkpoint(self.path)
        self._check_same(manifest)
        state.load(tensors, manifest.step, manifest.filled, str(self.path))
        return Progress(from_columns(manifest.history), manifest.seconds, manifest.weights)

    def finish(self, average: Denoiser) -> None:
        """Write the averaged weights."""
        save_weights(average, self.path / AVERAGE_FILE)

    def _check_same(self, manifest: Manifest) -> None:
        now = {**asdict(self.config), **_parts(self.problem)}
        then = {**asdict(TrainConfig.from_dict(manifest.config)), **_parts(manifest.problem)}
        for name in now:
            if name not in _FREE and now[name] != then.get(name):
                raise InputError(
                    f"{name} of the run to resume in {self.path}",
                    expected=f"{then.get(name)}, as before",
                    got=now[name],
                    fix="Resume with the same settings, or start a new run.",
                )
        if manifest.step > self.config.steps:
            raise InputError(
                "steps", expected=f"at least the {manifest.step} already done", got=self.config.steps
            )


def _parts(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem with shape, name and digest of the data one by one, the shape first, so that an error says which differs."""
    data = problem.get("data", {})
    rest = {name: value for name, value in problem.items() if name != "data"}
    return {f"{part} of the data": data.get(part) for part in ("shape", "name", "digest")} | rest


def _made(folder: Path) -> Path:
    """A folder in that of the run, made where it is missing.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(str(folder), expected="a path in a writable folder", got=error.strerror) from error
    return folder


def kept_weights(folder: Path | str) -> dict[int, Path]:
    """Step → file of averaged weights that a run kept, in the order of steps; empty where it kept none."""
    files = Path(folder, KEPT_FOLDER).glob("step-*.safetensors")
    found = {int(match[1]): file for file in files if (match := _KEPT_FILE.fullmatch(file.name))}
    return dict(sorted(found.items()))


def describe_problem(denoiser: Denoiser, data: Data, buckets: Buckets) -> dict[str, Any]:
    """What must be the same when a run is resumed, JSON-able: data, conditions, schedule, target and buckets."""
    conditions = described(denoiser.conditions_from(data.conditions))
    return {
        "data": {"name": data.name, "digest": data.digest, "shape": list(data.shape)},
        **({"conditions": conditions} if conditions else {}),
        "schedule": denoiser.schedule.describe(),
        "target": denoiser.target,
        "buckets": list(buckets.edges),
    }
