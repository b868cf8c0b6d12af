"""Provenance: files and folders are written whole or not at all, and a digest tells any two data sets apart."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest
import torch

from ntkdiag import provenance
from ntkdiag.errors import InputError


def make_run(folder: Path, text: str = "old") -> Path:
    with provenance.run_folder(folder, force=True) as building:
        (building / "diagnosis.json").write_text("{}")
        (building / "table.csv").write_text(text)
    return folder


def hidden(folder: Path) -> list[str]:
    """What an unfinished write would leave behind."""
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]


class Interrupted(BaseException):
    """Neither an Exception nor anything that code could expect."""


# --- files


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    provenance.write_text(path, "σ")
    assert path.read_bytes() == "σ".encode()
    provenance.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert hidden(tmp_path) == []


def test_a_text_is_read_without_the_mark_of_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffσ\n\ufeff".encode())
    assert provenance.read_text(path) == "σ\n\ufeff"


def test_what_is_no_text_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "missing": "expected a readable file; got No such file or directory",
        "folder": "expected a readable file; got Is a directory",
        "circle": "expected a readable file; got Too many levels of symbolic links",
        "n" * 300: "expected a readable file; got File name too long",
        "bytes": "expected a text file in UTF-8; got other bytes",
        "pipe": "expected a file; got a pipe or a device",
        "zeros": "expected a file; got a pipe or a device",
        "nul\x00": "expected the path of a file; got embedded null byte",
        "\ud800": "expected the path of a file; got 'utf-8' codec can't encode",
    }.items():
        with pytest.raises(InputError, match=words):
            provenance.read_text(tmp_path / name)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("failure", "seen"),
    [(OSError(errno.ENOSPC, "No space left on device"), InputError), (Interrupted(), Interrupted)],
)
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    failure: BaseException,
    seen: type[BaseException],
) -> None:
    path = tmp_path / "a.txt"
    provenance.write_text(path, "old")

    def fail(*args: object) -> None:
        raise failure

    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (Path, "replace")), fail)
    with pytest.raises(seen) as caught:
        provenance.write_text(path, "new")
    monkeypatch.undo()
    if seen is InputError:
        assert str(caught.value) == (
            f"{path}: expected a file that can be written, with room for it; got No space left on device."
        )
    assert path.read_text() == "old"
    assert hidden(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no/a\.txt: expected a path in a writable folder; got No such file"
    ):
        provenance.write_text(tmp_path / "no" / "a.txt", "")


def test_permissions_follow_the_umask_and_not_the_temporary_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        provenance.write_text(tmp_path / "a.txt", "")
        make_run(tmp_path / "run")
        assert os.umask(0o027) == 0o027  # left as it was
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o750


def test_json_has_sorted_keys_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    provenance.write_json(path, {"b": 1, "a": [0.1]})
    assert json.loads(path.read_text()) == {"a": [0.1], "b": 1}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    with pytest.raises(ValueError, match="JSON compliant"):
        provenance.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [0.1], "b": 1}


# --- folders


def test_a_run_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "run"
    with provenance.run_folder(path) as building:
        (building / "training.json").write_text("{}")
        assert not path.exists()
        assert building.parent == path.parent  # the same file system, so that moving is one step
    assert (path / "training.json").read_text() == "{}"
    assert hidden(path.parent) == []


@pytest.mark.parametrize("failure", [RuntimeError, Interrupted, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), provenance.run_folder(tmp_path / "run") as building:
        (building / "half").write_text("x")
        raise failure
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [RuntimeError, Interrupted])
def test_a_block_that_fails_leaves_the_earlier_run(tmp_path: Path, failure: type[BaseException]) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(failure), provenance.run_folder(run, force=True) as building:
        (building / "table.csv").write_text("new")
        raise failure
    assert (run / "table.csv").read_text() == "old"
    assert list(tmp_path.iterdir()) == [run]


def test_a_swap_that_fails_brings_the_earlier_run_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    moves: list[Path] = []
    move = Path.replace

    def second_fails(self: Path, target: Path) -> Path:
        moves.append(self)
        if len(moves) == 2:
            raise OSError("cut off")
        return move(self, target)

    with pytest.raises(OSError, match="cut off"), provenance.run_folder(run, force=True) as building:
        (building / "diagnosis.json").write_text("{}")
        monkeypatch.setattr(Path, "replace", second_fails)
    monkeypatch.undo()
    assert len(moves) == 3
    assert (run / "table.csv").read_text() == "old"
    assert list(tmp_path.iterdir()) == [run]


def test_an_earlier_run_is_replaced_whole_and_only_with_force(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"got a folder that holds another run\. .*--force"):
        provenance.run_folder(run).__enter__()
    assert (run / "table.csv").read_text() == "old"
    with provenance.run_folder(run, force=True) as building:
        (building / "demo.json").write_text("{}")
    assert [entry.name for entry in run.iterdir()] == ["demo.json"]
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.parametrize("force", [False, True])
def test_foreign_files_are_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(InputError, match="got a folder with other files in it"),
        provenance.run_folder(tmp_path, force),
    ):
        raise AssertionError("the block must not run")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("force", [False, True])
def test_a_file_of_that_name_is_never_replaced(tmp_path: Path, force: bool) -> None:
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(InputError, match="expected a new folder; got a file of that name"):
        provenance.run_folder(path, force).__enter__()
    assert path.read_text() == "mine"


def test_foreign_files_that_came_meanwhile_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match="other files"), provenance.run_folder(run, force=True):
        run.mkdir()
        (run / "mine.txt").write_text("x")
    assert [entry.name for entry in run.iterdir()] == ["mine.txt"]


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert (make_run(tmp_path / "run") / "table.csv").read_text() == "old"


@pytest.mark.parametrize("inner", ["", "deeper"])
def test_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    run = make_run(tmp_path / "run")
    (run / "deeper").mkdir()
    monkeypatch.chdir(run / inner)
    for path in (run, Path("..") if inner else Path()):
        with pytest.raises(InputError, match="got the current folder, or a folder that contains it"):
            provenance.run_folder(path, force=True).__enter__()
    assert (run / "table.csv").read_text() == "old"


def test_an_empty_current_folder_may_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make_run(Path())
    assert (tmp_path / "here" / "table.csv").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["here"]


def test_a_link_to_a_run_is_followed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    link = tmp_path / "latest"
    link.symlink_to(run)
    make_run(link, "new")
    assert link.is_symlink() and (run / "table.csv").read_text() == "new"


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"expected a path in a writable folder; got (Not a directory|File exists)"
    ):
        provenance.run_folder(tmp_path / "file" / "run").__enter__()


def test_a_killed_process_leaves_the_earlier_run_usable(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    script = """
        import sys, time
        from ntkdiag import provenance
        with provenance.run_folder(sys.argv[1], force=True) as building:
            (building / "diagnosis.json").write_text("{}")
            (building / "table.csv").write_text("new")
            print("filled", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(run)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "filled\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    assert (run / "table.csv").read_text() == "old"
    assert hidden(tmp_path)
    make_run(run, "newer")
    assert (run / "table.csv").read_text() == "newer"
    assert hidden(tmp_path) == []  # what the dead process left behind is gone


# --- digests and the environment


def test_digest_is_fixed_by_values_alone() -> None:
    data = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert provenance.digest(data) == provenance.digest(data.clone().requires_grad_())
    assert provenance.digest(data.T.contiguous()) == provenance.digest(data.T)


def test_digest_depends_on_dtype_shape_bytes_order_and_grouping() -> None:
    data = torch.arange(6, dtype=torch.float32)
    changed = data.clone()
    changed[5] += 1e-6
    variants: list[tuple[torch.Tensor, ...]] = [
        (data,),
        (data.double(),),
        (data.bfloat16(),),
        (data.half(),),
        (data.int(),),
        (data.view(torch.int32),),
        (data.reshape(2, 3),),
        (data.reshape(3, 2),),
        (data.reshape(1, 6),),
        (changed,),
        (data.flip(0),),
        (data[:3], data[3:]),
        (data[3:], data[:3]),
        (data, data),
        (),
        (torch.zeros(0),),
        (torch.tensor(0.0),),
        (torch.tensor(-0.0),),
        (torch.tensor([True]),),
        (torch.tensor([1], dtype=torch.uint8),),
    ]
    assert len({provenance.digest(*tensors) for tensors in variants}) == len(variants)


def test_environment_is_plain_text_and_names_the_versions() -> None:
    found = provenance.environment()
    assert found["torch"] == torch.__version__ or found["torch"] in torch.__version__
    assert found["device"].startswith("cpu (") and found["threads"] == str(torch.get_num_threads())
    for name in ("ntkdiag", "torch", "numpy", "scipy", "pandas"):
        assert found[name] == metadata.version(name)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert provenance.versions().items() < found.items()
    assert all(isinstance(value, str) for value in found.values())
