"""Temporary folders of killed processes are removed by the next one, those of living processes never."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ntkdiag import provenance
from ntkdiag.errors import InputError
from ntkdiag.provenance import unfinished
from ntkdiag.provenance.unfinished import KEPT, made_parent, remove_dead, unfinished_folder


def hidden(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.name.startswith("."))


@contextmanager
def other_process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed a line and now waits; killed at the end of the block."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


RUN = """
    import sys, time
    from ntkdiag import provenance
    with provenance.run_folder(sys.argv[1]) as building:
        (building / "half").write_text("x")
        print("ready", flush=True)
        time.sleep(600)
"""
FILE = """
    import sys, time
    from ntkdiag import provenance
    with provenance.written(sys.argv[1]) as file:
        file.write_text("half")
        print("ready", flush=True)
        time.sleep(600)
"""
# Killed after the earlier run was moved away and before the new one has its place.
REPLACING = """
    import sys, time
    from pathlib import Path
    from ntkdiag import provenance

    move = Path.replace

    def stop_at_the_second(self, target):
        if self.name.endswith(".tmp"):
            print("ready", flush=True)
            time.sleep(600)
        return move(self, target)

    Path.replace = stop_at_the_second
    with provenance.run_folder(sys.argv[1], force=True) as building:
        (building / "diagnosis.json").write_bytes(b"new")
"""


@pytest.mark.parametrize("script", [RUN, FILE])
@pytest.mark.parametrize("again", ["run_folder", "write_text", "check_free"])
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(
    tmp_path: Path, script: str, again: str
) -> None:
    def next_one() -> None:
        if again == "run_folder":
            with provenance.run_folder(tmp_path / "mine"):
                pass
        elif again == "write_text":
            provenance.write_text(tmp_path / "mine.txt", "x")
        else:
            provenance.check_free(tmp_path / "nothing")

    with other_process(script, tmp_path / "theirs"):
        (theirs,) = hidden(tmp_path)
        next_one()
        assert hidden(tmp_path) == [theirs] and len(list(theirs.iterdir())) == 1
    assert hidden(tmp_path) == [theirs]
    next_one()
    assert hidden(tmp_path) == []


def test_a_process_that_still_writes_in_this_one_is_left_alone(tmp_path: Path) -> None:
    with provenance.run_folder(tmp_path / "one") as building:
        (building / "demo.json").write_text("{}")
        with provenance.run_folder(tmp_path / "two"):
            provenance.write_text(tmp_path / "three", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_a_killed_process_was_replacing_comes_back(tmp_path: Path, force: bool) -> None:
    run = tmp_path / "run"
    with provenance.run_folder(run) as building:
        (building / "diagnosis.json").write_bytes(b"old")
    with other_process(REPLACING, run):
        assert not run.exists() and len(hidden(tmp_path)) == 2
        provenance.check_free(run)  # while that process lives nothing is touched
        assert not run.exists()
    if force:
        with provenance.run_folder(run, force=True) as building:
            (building / "diagnosis.json").write_bytes(b"newer")
    else:
        with pytest.raises(InputError, match="a folder that holds another run"):
            provenance.check_free(run)
    assert (run / "diagnosis.json").read_bytes() == (b"newer" if force else b"old")
    assert hidden(tmp_path) == []


def test_a_replaced_run_does_not_come_back_over_a_newer_one(tmp_path: Path) -> None:
    with unfinished_folder(tmp_path / "run", KEPT) as shelf:
        (shelf / "run").mkdir()
        (shelf / "run" / "demo.json").write_text("old")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "demo.json").write_text("new")
    assert (tmp_path / "run" / "demo.json").read_text() == "new" and hidden(tmp_path) == []


def dead(parent: Path, host: str, boot: str, suffix: str = ".tmp") -> Path:
    folder = parent / f".run.ntkdiag-{host}-{boot}-0123abcd{suffix}"
    folder.mkdir()
    (folder / "half").write_text("x")
    return folder


def test_only_folders_that_this_machine_made_are_removed(tmp_path: Path) -> None:
    host, boot = unfinished._host(), unfinished._boot()
    of_another = dead(tmp_path, "00000000", "11111111")  # on a shared disk; its process may live there
    dead(tmp_path, host, boot)
    dead(tmp_path, host, "22222222")  # before this machine was started again
    dead(tmp_path, "33333333", boot)  # of another container on this machine
    strange = [
        tmp_path / name for name in (".run.ntkdiag-", ".ntkdiag-x.tmp", ".run.12ab.tmp", ".bashrc", "run.tmp")
    ]
    for path in strange:
        path.mkdir()
    (tmp_path / f".file.ntkdiag-{host}-{boot}-0.tmp").write_text("not a folder")
    (tmp_path / f".link.ntkdiag-{host}-{boot}-0.tmp").symlink_to(of_another)
    before = {path.name for path in tmp_path.iterdir()}
    remove_dead(tmp_path)
    gone = before - {path.name for path in tmp_path.iterdir()}
    assert gone == {
        f".run.ntkdiag-{a}-{b}-0123abcd.tmp"
        for a, b in ((host, boot), (host, "22222222"), ("33333333", boot))
    }


def test_without_locks_nothing_is_removed_and_everything_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = dead(tmp_path, unfinished._host(), unfinished._boot())

    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(descriptor: int, how: int) -> None:
            raise OSError(95, "Operation not supported")

    for locks in (NoLocks, None):  # a file system without locks, a system without them
        monkeypatch.setattr(unfinished, "fcntl", locks)
        provenance.write_text(tmp_path / "a.txt", "x")
        with provenance.run_folder(tmp_path / "run", force=True) as building:
            (building / "demo.json").write_text("{}")
        assert hidden(tmp_path) == [left]


def test_a_folder_that_another_process_takes_for_dead_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, calls = Path.mkdir, []

    def unlucky(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        make(self, mode, parents, exist_ok)
        calls.append(self)
        if len(calls) == 1:
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", unlucky)
    provenance.write_text(tmp_path / "a.txt", "x")
    assert len(calls) == 2 and (tmp_path / "a.txt").read_text() == "x"


def test_parents_are_made_and_removed_again_if_the_block_fails(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b" / "c.txt"
    with pytest.raises(RuntimeError), made_parent(place):
        assert place.parent.is_dir()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), made_parent(place):
        (tmp_path / "a" / "other").write_text("x")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["other"]
    with made_parent(place):
        provenance.write_text(place, "x")
    assert place.read_text() == "x"
    with pytest.raises(InputError, match="expected a path in a writable folder"), made_parent(place / "d"):
        pass


def test_names_of_any_kind_are_written_or_refused_in_a_line(tmp_path: Path) -> None:
    for name in (
        "σ" * 120,
        "n" * 255,
        "\udcff",
    ):  # the last is a byte that is no UTF-8, as names on disks have
        provenance.write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    for name in ("n" * 300, "σ" * 130, "nul\x00", "\ud800"):
        with pytest.raises(InputError, match=r"expected a .*; got"):
            provenance.write_text(tmp_path / name, "x")
    assert hidden(tmp_path) == []
