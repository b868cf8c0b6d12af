"""A measurement that is interrupted or killed goes on with the same command and ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_cases import QUICKLY, TINY
from cli_processes import Command

import ntkdiag
from ntkdiag.provenance import KeptParts, kept_parts

FULL = [*TINY, *QUICKLY, "--kernel", "full", "--top-k", "2", "--slq", "2"]
KEPT = ".run.unfinished"


def kill_after(parts: int) -> None:
    """Ends the process as SIGKILL does, with one more part made and not yet written."""
    write, left = kept_parts.write_bytes, [parts]

    def until(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, data)

    kept_parts.write_bytes = until


def content(folder: Path) -> dict[str, bytes]:
    """Every file but for the seconds that it took."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            lines = path.read_bytes().splitlines()
            found[str(path.relative_to(folder))] = b"\n".join(
                line for line in lines if b"seconds" not in line
            )
    return found


def interrupted_at(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
    """An error while the part of this number, counted from 0, is made."""
    take, count = KeptParts.take, [0]

    def until(self: KeptParts, key: str, name: str, make: Any, fits: Any) -> Any:
        count[0] += 1
        if count[0] > at:
            raise error
        return take(self, key, name, make, fits)

    monkeypatch.setattr(KeptParts, "take", until)


@pytest.fixture
def whole(call: Any, workspace: Path) -> dict[str, bytes]:
    assert call("measure", *FULL, "--out", "whole").code == 0
    assert sorted(path.name for path in workspace.iterdir()) == ["whole"]
    return content(workspace / "whole")


def test_killed_at_random_places_it_ends_with_the_same_bytes(
    whole: dict[str, bytes], call: Any, workspace: Path
) -> None:
    command, done = ["measure", *FULL, "--out", "run"], 0
    for parts in random.Random(0).sample(range(1, 6), 2):
        process = Command(workspace, *command, first=partial(kill_after, parts))
        code, _, err = process.end()
        process.kill()
        assert code == -signal.SIGKILL
        assert (
            len(KeptParts(workspace / KEPT)) == done + parts
        )  # the one that was not written is lost, and no other
        assert ("interrupted run" in err) == (done > 0)
        done += parts
    found = call(*command)
    assert (
        found.code == 0
        and found.err.count("goes on from finished parts of an interrupted run beside run\n") == 1
    )
    assert content(workspace / "run") == whole
    assert sorted(path.name for path in workspace.iterdir()) == ["run", "whole"]


@pytest.mark.parametrize("command", ["measure", "verify"])
def test_ctrl_c_says_how_to_go_on(
    command: str, call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [command, *TINY, *QUICKLY, "--out", "deep/run"]
    with monkeypatch.context() as patch:
        interrupted_at(patch, 2, KeyboardInterrupt())
        stopped = call(*arguments)
    assert stopped.code == 130 and stopped.out == ""
    assert "note: 2 finished parts beside deep/run; the same command again goes on from them\n" in stopped.err
    assert call(*arguments).code == 0
    assert call(command, *TINY, *QUICKLY, "--out", "whole").code == 0
    assert content(workspace / "deep" / "run") == content(workspace / "whole")
    assert [path.name for path in (workspace / "deep").iterdir()] == ["run"]


def test_sigterm_keeps_what_is_finished(workspace: Path) -> None:
    arguments = ["measure", *TINY, "--buckets", "4", "--samples", "64", "--controls", "9", "--out", "run"]
    process = Command(workspace, *arguments)
    try:
        while process.code is None and not len(KeptParts(workspace / KEPT)):
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        code, _, err = process.end()
    finally:
        process.kill()
    assert code == 143
    assert "the same command again goes on from" in err and "Traceback" not in err
    assert len(KeptParts(workspace / KEPT)) > 0 and not (workspace / "run").exists()


@pytest.mark.parametrize(
    "other",
    [("--samples", "9"), ("--probes", "3"), ("--seed", "1"), ("--target", "epsilon"), ("--params", "*bias")],
)  # fmt: skip
def test_parts_of_another_command_are_never_used(
    other: tuple[str, str], call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [*TINY, *QUICKLY, "--controls", "0"]
    arguments = ["measure", *alone, *other]
    with monkeypatch.context() as patch:
        interrupted_at(patch, 3, KeyboardInterrupt())
        assert call("measure", *alone, "--out", "run").code == 130
    assert len(KeptParts(workspace / KEPT)) == 3
    found = call(*arguments, "--out", "run")
    assert found.code == 0 and "interrupted run" not in found.err
    assert call(*arguments, "--out", "whole").code == 0
    assert content(workspace / "run") == content(workspace / "whole")


def test_a_network_with_other_code_and_the_same_weights(
    call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(2, 8), torch.nn.Linear(8, 2)
    def forward(self, x, time):
        return self.b(torch.{}(self.a(x)))
def build(shape):
    torch.manual_seed(0)
    return Net()
"""
    arguments = [*QUICKLY, "--data", "mixture", "--target", "v", "--schedule", "cosine", "--out", "run"]
    for name in ("tanh", "sin"):
        Path(f"{name}.py").write_text(code.format(name))
    with monkeypatch.context() as patch:
        interrupted_at(patch, 3, KeyboardInterrupt())
        assert call("measure", "--model", "tanh.py:build", *arguments).code == 130
    again = call("measure", "--model", "sin.py:build", *arguments)
    assert again.code == 0 and "interrupted run" not in again.err


def test_damaged_parts_are_made_again(
    whole: dict[str, bytes], call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["measure", *FULL, "--out", "run"]
    with monkeypatch.context() as patch:
        interrupted_at(patch, 5, MemoryError("too large"))
        stopped = call(*command)
    assert stopped.code == 2 and stopped.err.count("error: ") == 1 and "Traceback" not in stopped.err
    for place, path in enumerate(sorted((workspace / KEPT).iterdir())):
        written = path.read_bytes()
        path.write_bytes([b"", written[:-1], b"\x80\x04" + written, written[::-1], written][place])
    assert call(*command).code == 0
    assert content(workspace / "run") == whole


def test_from_python(tmp_path: Path) -> None:
    data = ntkdiag.data.load("mixture")
    network = ntkdiag.models.build("mlp", data.shape, 0, width=8, depth=1)
    denoiser = ntkdiag.Denoiser(network, ntkdiag.schedules.cosine(), "v", call="log_snr")
    calls = []
    for _ in range(2):
        found = ntkdiag.measure(denoiser, data, 4, samples=8, probes=1, resume=tmp_path / "parts")
        calls.append((found.summary.to_csv(), found.grams["per_probe"].numpy().tobytes()))
    assert calls[0] == calls[1] and len(KeptParts(tmp_path / "parts")) == 4
    with pytest.raises(ntkdiag.errors.InputError, match="resume: expected a path"):
        ntkdiag.measure(denoiser, data, 4, samples=8, resume=3)  # type: ignore[arg-type]
