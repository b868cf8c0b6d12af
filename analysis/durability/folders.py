"""Folders of training runs while they are written: how far they are, and what is in them but for times."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.durability.commands import Command
from ntkdiag.errors import InputError
from ntkdiag.train.checkpoints.checkpoint import read_manifest

# Seconds: the longest wait; between two looks for a checkpoint, and for a file that is being written.
_PATIENCE, _PAUSE, _SHORT = 600.0, 0.02, 0.0005


def is_writing(run: Path) -> bool:
    """Whether a file is being written in the folder, or was when its process died."""
    return any(path.name.startswith(".") for path in run.iterdir())


def wait_for(process: Command, run: Path, after: int | None) -> None:
    """Wait until the checkpoint is of a later step; for None, until something is being written.

    Raises:
        AssertionError: the process ended before, or nothing happened for minutes.
    """
    until = time.monotonic() + _PATIENCE
    while not (_step(run) > after if after is not None else is_writing(run)):
        assert process.code is None, process.end()
        assert time.monotonic() < until, f"nothing happened in {run}"
        time.sleep(_SHORT if after is None else _PAUSE)


def stop_while_writing(process: Command, run: Path) -> None:
    """Stop a process at a moment at which something is being written; as `wait_for`."""
    while True:
        wait_for(process, run, None)
        process.send_signal(signal.SIGSTOP)
        time.sleep(_SHORT)
        if is_writing(run):
            return
        process.send_signal(signal.SIGCONT)


def _step(run: Path) -> int:
    try:
        return read_manifest(run).step
    except InputError:  # there is none yet
        return -1


def content(run: Path) -> dict[str, Any]:
    """What every file of a run holds: bytes, tables and records without seconds; events of TensorBoard are left out."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and "tensorboard" not in path.parts]
    return {str(path.relative_to(run)): _without_seconds(path) for path in files}


def _without_seconds(path: Path) -> Any:
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, comment="#", keep_default_na=False)
        return table.drop(columns=[name for name in table if "seconds" in name]).to_csv()
    if path.suffix == ".json":
        return _dropped(json.loads(path.read_text()))
    return path.read_bytes()


def _dropped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _dropped(item) for name, item in value.items() if "seconds" not in name}
    return [_dropped(item) for item in value] if isinstance(value, list) else value
