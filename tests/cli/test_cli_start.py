"""The entry point: exit codes, help without torch, quiet in pipes, one line for every error."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cli_processes import Command

from ntkdiag.cli import main
from ntkdiag.cli.app import COMMANDS
from ntkdiag.cli.output.json_document import plain
from ntkdiag.errors import MeasurementError
from ntkdiag.progress import progress_bar

HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "sklearn")
NAMES = [function.__name__ for function in COMMANDS]
TINY = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1", "--data", "mixture"]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_help_and_errors_of_usage_import_nothing_heavy() -> None:
    asked = [["--help"], ["--version"], [], ["mesure"], ["train"], *([name, "--help"] for name in NAMES)]
    code = (
        "import sys, io, contextlib\n"
        "from ntkdiag.cli import main\n"
        f"for arguments in {asked!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "        main(arguments)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = python(code)
    assert result.stdout == "[]\n", result


def test_without_a_command_the_overview_is_shown(call: Any) -> None:
    result = call()
    assert result.code == 0
    for name in NAMES:
        assert name in result.out
    assert result.out == call("--help").out
    assert "..." not in result.out.partition("Commands")[2]  # no description is cut off


def test_the_version_is_printed(call: Any) -> None:
    from importlib import metadata

    assert call("--version").out == f"ntkdiag {metadata.version('ntkdiag')}\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (MeasurementError("not a\nnumber"), 1, "error: not a number\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_exit_codes(
    call: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    monkeypatch.setattr("ntkdiag.cli.output.paths.check_file", Mock(side_effect=error))
    result = call("weights", "--rule", "erd", "--target", "v")
    assert (result.code, result.out, result.err) == (code, "", line)


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Mock(
        side_effect=AssertionError("a bug of ours")
    )  # a function of this file would be the user's code
    monkeypatch.setattr("ntkdiag.cli.output.paths.check_file", failing)
    with pytest.raises(AssertionError, match="a bug of ours"):
        main(["weights", "--rule", "erd", "--target", "v"])


def test_a_command_is_quiet_where_no_one_watches(tmp_path: Path) -> None:
    process = Command(tmp_path, "train", *TINY, "--steps", "3", "--batch", "8", "--out", "run", "--json")
    code, out, err = process.end()
    process.kill()
    assert code == 0 and err == ""
    assert out.startswith("{")


def test_ctrl_c_ends_the_installed_command_with_130_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "ntkdiag"
    arguments = ["train", *TINY, "--steps", "1000000", "--batch", "8", "--out", "run"]
    process = subprocess.Popen(
        [command, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "training.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and out == ""
    assert "--resume" in err and "Traceback" not in err


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = Path(sys.executable).parent / "ntkdiag"
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [command, "measure", "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert "Traceback" not in result.stderr and "BrokenPipe" not in result.stderr


# Progress and JSON


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, drawn in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr("sys.stderr", stream)
        with progress_bar() as bars:
            bars("training · loss 0.5", 1, 2)
            bars("training · loss 0.4", 2, 2)
        assert bool(stream.getvalue()) is drawn


def test_a_bar_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar(enabled=False) as bars:
        bars("training", 1, 2)
    assert stream.getvalue() == ""


def test_json_has_no_nan_and_no_numpy() -> None:
    import numpy as np

    value = {"a": np.float64("nan"), 1: (np.int64(3), float("inf")), "b": [np.bool_(True), "text", None]}
    assert plain(value) == {"a": None, "1": [3, None], "b": [True, "text", None]}
    assert type(plain(np.int64(3))) is int


def test_a_backend_that_does_not_exist_is_no_concern_of_a_command(measured: Path, tmp_path: Path) -> None:
    # As a notebook leaves a backend to what it starts.
    process = Command(tmp_path, "plot", str(measured), environment={"MPLBACKEND": "bogus"})
    code, _, err = process.end()
    process.kill()
    assert code == 0, err
    assert (tmp_path / "effective_rank.png").read_bytes()[:4] == b"\x89PNG"


def test_the_overview_takes_less_than_a_second() -> None:
    """Of the processor's time, which another program on the machine does not lengthen; the best of three."""
    code = "import time; from ntkdiag.cli import main; main(['--help']); print(time.process_time())"
    assert min(float(python(code).stdout.splitlines()[-1]) for _ in range(3)) < 1.0
