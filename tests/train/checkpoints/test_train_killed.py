"""SIGKILL at every change that saving makes to the file system: the checkpoint is whole, and the run resumes bit by bit."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from train_cases import QUICK, Doubling, small_data, small_denoiser

from ntkdiag.train import train
from ntkdiag.train.checkpoints.checkpoint import read_checkpoint
from ntkdiag.train.checkpoints.run_folder import RunFolder

# What Python reports before it changes the file system; files that are opened are looked at more closely.
_CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
    "os.link",
    "os.symlink",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(at: int) -> None:
    """Let this process be killed before its change number `at`, counted from 1; a file of tensors is three changes."""
    left = [at]

    def change() -> None:
        left[0] -= 1
        if left[0] == 0:
            _die()

    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITES):
            change()

    write, sync = safetensors.torch.save_file, os.fsync

    def in_parts(tensors: Any, file: Path) -> None:
        change()
        write(tensors, file)
        whole = file.read_bytes()
        os.truncate(file, len(whole) // 2)  # a change: half of the file is written
        file.write_bytes(whole)

    def synced(descriptor: int) -> None:
        change()
        sync(descriptor)

    safetensors.torch.save_file, os.fsync = in_parts, synced
    sys.addaudithook(seen)


def is_killed(call: Callable[[], None], at: int) -> bool:
    """Run a call in a process of its own, which dies at a change; whether it got so far."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arm(at)
            call()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


class _KilledAtEachChange:
    """In place of `RunFolder.save`: at one step it is killed at each change, in copies of the folder; then it is done.

    Attributes:
        left: The copies.
    """

    def __init__(self, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: list[Path] = []
        self._step, self._save = step, RunFolder.save
        monkeypatch.setattr(RunFolder, "save", lambda folder, *arguments: self._each(folder, *arguments))

    def _each(self, folder: RunFolder, state: Any, progress: Any) -> None:
        for at in count(1) if state.step == self._step else ():
            copy = folder.path.with_name(f"change {at}")
            shutil.copytree(folder.path, copy)
            there = RunFolder(copy, folder.config, folder.problem, folder.notes)
            if not is_killed(lambda there=there: self._save(there, state, progress), at):
                break
            self.left.append(copy)
        self._save(folder, state, progress)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL is that of POSIX systems")
def test_killed_at_any_change_the_checkpoint_is_whole_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(QUICK, steps=3, checkpoint_every=1, log_every=1, keep_checkpoints=2)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed = _KilledAtEachChange(2, patch)
        whole = train(small_denoiser(), small_data(), Doubling(), config, out=out)
    steps = [read_checkpoint(copy)[0].step for copy in killed.left]
    # The checkpoint before until the new one has its place, and the new one ever after.
    assert steps == sorted(steps) and steps.count(1) > 10 and steps.count(2) > 5
    for copy in killed.left:
        resumed = train(small_denoiser(), small_data(), Doubling(), config, out=copy, resume=True)
        for name, value in whole.denoiser.state_dict().items():
            assert torch.equal(resumed.denoiser.state_dict()[name], value)
        assert {path.name for path in copy.iterdir()} == {path.name for path in out.iterdir()}
        for file in out.glob("*.safetensors"):
            assert (copy / file.name).read_bytes() == file.read_bytes()
