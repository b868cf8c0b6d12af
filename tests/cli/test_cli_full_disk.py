"""A disk that is full ends every command that writes in one line and exit code 2, with nothing half-written left.

The disk is a file system of 1.5 MB where mounting is permitted. Everywhere, files may be limited in length, and any one
of the writes of a command may be made to fail.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_cases import QUICKLY, TINY, snapshot

import ntkdiag
from ntkdiag.diagnosis import Diagnosis
from ntkdiag.errors import InputError
from ntkdiag.train.checkpoints.checkpoint import read_manifest
from ntkdiag.train.checkpoints.run_folder import RunFolder
from ntkdiag.weights import rule

SHORT = ["--steps", "6", "--batch", "16", "--setting", "checkpoint_every=2"]
# Whatever else a run writes along the way: averaged weights, samples.
ALONG = ["--setting", "keep_every=4", "--setting", "sample_every=4"]
# Command → arguments; {trained}, {measured} and {table} stand for results of earlier commands, {disk} for the disk.
COMMANDS = {
    "measure": ["measure", "--model", "{trained}", *QUICKLY, "--out", "{disk}/deep/run"],
    "measure full": [
        *("measure", *TINY, *QUICKLY, "--kernel", "full", "--top-k", "2", "--slq", "2", "--out", "{disk}/run")
    ],
    "verify": ["verify", "--from", "{measured}", "--out", "{disk}/run"],
    "verify measuring": ["verify", "--model", "{trained}", *QUICKLY, "--out", "{disk}/run"],
    "weights csv": ["weights", "--rule", "erd", "--target", "v", "--out", "{disk}/deep/er/w.csv"],
    "weights json": ["weights", "--rule", "erd", "--target", "v", "--out", "{disk}/w.json"],
    "weights npy": ["weights", "--rule", "erd", "--target", "v", "--schedule", "linear_beta", "--out", "{disk}/w.npy"],
    "weights safetensors": [
        *("weights", "--rule", "erd", "--target", "v", "--schedule", "linear_beta"),
        *("--out", "{disk}/w.safetensors"),
    ],
    "audit csv": ["audit", "{table}", "--out", "{disk}/a.csv"],
    "audit json": ["audit", "{table}", "--out", "{disk}/a.json"],
    "train": ["train", *TINY, *SHORT, "--out", "{disk}/run"],
    "sample": ["sample", "--model", "{trained}", "--count", "16", "--steps", "2", "--out", "{disk}/s.npy"],
    "plot png": ["plot", "{measured}", "--out", "{disk}/p.png"],
    "plot svg": ["plot", "{measured}", "--out", "{disk}/p.svg"],
    "report": ["report", "{measured}", "--out", "{disk}/page.html"],
    "demo": ["demo", "--quick", "--out", "{disk}/demo"],
}  # fmt: skip
every_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture
def typed(trained: Path, measured: Path, tmp_path: Path) -> Callable[[str, Path], list[str]]:
    """The arguments of a command, with its places filled in."""
    table = tmp_path / "table.csv"
    rule("erd", "v").save(table)

    def fill(name: str, disk: Path) -> list[str]:
        places = {"trained": trained, "measured": measured, "table": table, "disk": disk}
        return [argument.format(**places) for argument in COMMANDS[name]]

    return fill


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without figures, which take most of the time of a report."""
    monkeypatch.setattr("ntkdiag.report.page.page.build_page", lambda inputs: "page" * 9999)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def full_disk(disk: Path) -> Iterator[Path]:
    """A file system of 1.5 MB without a free page."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a small file system cannot be mounted here: there is no 'mount'")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def short_files(limit: int) -> Iterator[None]:
    """No file may be longer than this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_refused(result: Any, words: str) -> None:
    assert result.code == 2, result
    assert result.out == ""
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and result.err.splitlines()[-1] == errors[0], result.err
    assert "Traceback" not in result.err and ".ntkdiag-" not in result.err
    assert re.search(words, errors[0]), errors[0]


@every_command
def test_a_full_disk(name: str, call: Any, typed: Any, full_disk: Path) -> None:
    before = snapshot(full_disk)
    assert_refused(call(*typed(name, full_disk)), rf"{full_disk}/.*got No space left on device")
    assert snapshot(full_disk) == before


@every_command
def test_files_that_may_not_be_so_long(name: str, call: Any, typed: Any, disk: Path) -> None:
    arguments = typed(name, disk)
    with short_files(100):
        result = call(*arguments)
    assert_refused(result, rf"{disk}/.*got File too large")
    assert snapshot(disk) == {}


class Full:
    """A disk that becomes full at one of the writes, counted from 1."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def __call__(self, descriptor: int) -> None:
        self.count += 1
        if self.count == self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def at_each_write(monkeypatch: pytest.MonkeyPatch) -> Iterator[Full]:
    """Disks that become full at the first write, at the second, … until a command did not get so far."""
    for at in range(1, 50):
        full = Full(at)
        monkeypatch.setattr("ntkdiag.provenance.files.os.fsync", full)
        yield full
        if full.count < at:
            assert at > 1
            return
    raise AssertionError("more writes than expected")


def test_a_disk_that_becomes_full_at_any_write(
    call: Any, typed: Any, disk: Path, measured: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(*typed("measure full", workspace)).code == 0
    for made in (Diagnosis.load(measured), Diagnosis.load(workspace / "run")):
        for full in at_each_write(monkeypatch):
            try:
                made.save(disk / "deep" / "run")
            except InputError as error:
                assert str(error) == (
                    f"{disk}/deep/run: expected a folder that can be written to, with room for the run; "
                    "got No space left on device."
                )
                assert full.count == full.at and snapshot(disk) == {}
            else:
                assert full.count < full.at and full.at > 8
        shutil.rmtree(disk / "deep")


def test_a_training_run_is_not_there_or_can_be_continued(
    call: Any, typed: Any, disk: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = call(*typed("train", workspace), *ALONG, "--json").document
    for full in at_each_write(monkeypatch):
        run = disk / f"at {full.at}"
        result = call(*typed("train", run), *ALONG)
        if full.count < full.at:
            continue
        assert_refused(result, rf"{run}/run.*got No space left on device")
        monkeypatch.undo()
        if full.at <= 3:  # of the first checkpoint, and the weights at its step
            assert not run.exists()
            continue
        names = [path.name for path in (run / "run").iterdir()]
        assert not [name for name in names if name.startswith(".")]
        assert read_manifest(run / "run").tensors in names
        continued = call("train", "--resume", "--out", run / "run", "--json").document
        assert continued["losses"] == whole["losses"]


@pytest.mark.parametrize("writes", ["save", "keep", "show"])
def test_a_training_run_whose_folder_vanishes(
    writes: str, call: Any, typed: Any, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, moved, write = disk / "run", disk / "moved", getattr(RunFolder, writes)

    def vanished(self: RunFolder, *arguments: Any) -> None:
        if (arguments[1] if writes == "show" else arguments[0].step) == 4:
            run.rename(moved)
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, writes, vanished)
        result = call(*typed("train", disk), *ALONG)
    assert_refused(result, rf"{run}/.*expected a path in a writable folder; got No such file or directory")
    assert [path.name for path in disk.iterdir()] == ["moved"]
    assert read_manifest(moved).step == 2
    assert call("train", "--resume", "--out", moved).code == 0
    assert call(*typed("train", disk), *ALONG).code == 0
    tensors = "checkpoint-00000006.safetensors"
    assert (run / tensors).read_bytes() == (moved / tensors).read_bytes()


def test_with_force_the_earlier_run_stays(
    call: Any, typed: Any, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, write in (("train", 1), ("measure full", 1), ("measure full", 12), ("verify", 2)):
        place = disk / name.replace(" ", "-")
        assert call(*typed(name, place)).code == 0
        before = snapshot(disk)
        with monkeypatch.context() as patch:
            patch.setattr("ntkdiag.provenance.files.os.fsync", Full(write))
            assert_refused(call(*typed(name, place), "--force"), "got No space left on device")
        kept = place / ".run.unfinished"
        assert kept.exists() == (write > 10)
        shutil.rmtree(kept, ignore_errors=True)
        assert snapshot(disk) == before
        shutil.rmtree(place)


def test_parts_of_a_measurement_stay_when_the_disk_becomes_full(
    call: Any, typed: Any, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(*typed("measure", disk / "whole")).code == 0
    with monkeypatch.context() as patch:
        patch.setattr("ntkdiag.provenance.files.os.fsync", Full(4))
        result = call(*typed("measure", disk))
    assert_refused(result, "got No space left on device")
    assert "3 finished parts beside" in result.err and not (disk / "deep" / "run").exists()
    assert call(*typed("measure", disk)).code == 0
    grams = [disk / path / "grams.safetensors" for path in ("deep/run", "whole/deep/run")]
    assert grams[0].read_bytes() == grams[1].read_bytes()


@pytest.mark.parametrize("file", ["constant/average.safetensors", "demo.json"])
def test_the_demo_on_a_disk_that_becomes_full_late(
    file: str, call: Any, typed: Any, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntkdiag.report.save_figures", lambda *arguments, **parts: {})
    monkeypatch.setattr("ntkdiag.report.write_page", lambda path, *arguments, **parts: path)
    move = Path.replace

    def full(self: Path, target: Path) -> Path:
        if str(target).endswith(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return move(self, target)

    monkeypatch.setattr(Path, "replace", full)
    assert_refused(
        call(*typed("demo", disk)), rf"{disk}/demo: expected a folder .*got No space left on device"
    )
    assert snapshot(disk) == {}


def test_the_output_itself_on_a_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    code = "import sys; from ntkdiag.cli import main; sys.exit(main())"
    for arguments in (["weights", "--rule", "erd", "--target", "v", "--json"], ["--help"], ["--version"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ") and "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1


def test_nothing_writes_but_by_what_writes_whole_files() -> None:
    """In the source: a file is opened for writing in one place alone."""
    package = Path(ntkdiag.__file__).parent
    writes = re.compile(
        r"(?<!provenance)\.write_(text|bytes)\(|\bopen\([^)]*[\"'][rwax]b?\+?[\"']|(?<!safetensors\.)torch\.save\((?!\{)|savefig\((?!buffer)"
        r"|\.to_csv\((?!index=False\))|np\.save\((?!buffer|stream)|save_file\("
    )
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text().splitlines()
        if writes.search(line)
        and "pickle.load" not in line
        and '.open("rb")' not in line
        and "os.devnull" not in line
        and not line.strip().startswith((">>>", '"', "#"))
    ]
    assert found == [
        "provenance/files.py: file.write_bytes(data)",
        "train/checkpoints/checkpoint.py: safetensors.torch.save_file(tensors, file)",
    ]


def test_figures_that_do_not_fit_are_refused_in_a_line(
    measured: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnosis = Diagnosis.load(measured)
    monkeypatch.setattr("ntkdiag.provenance.files.os.fsync", Full(3))
    with pytest.raises(InputError, match="got No space left on device"):
        ntkdiag.report.save_figures(disk / "figures", diagnosis)
    assert len(snapshot(disk)) == 3 and all(name.endswith(("figures", ".png")) for name in snapshot(disk))
