"""Commands in processes of their own, for tests that signal and kill them.

Each is forked from a server that has imported what commands need, so that it starts in a tenth of the time of a new
interpreter. Tests of what an interpreter does at its start and end use `subprocess` instead.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["torch", "torch._dynamo", "pandas", "scipy.special", "ntkdiag.cli", "ntkdiag.kernel"]
)


class Command:
    """A running command: what it prints goes to files, so that it never waits for a reader.

    Args:
        folder: Its current folder.
        arguments: What a user types after `ntkdiag`.
        first: A function of a module, called in the process before the command.
        environment: Variables to set before the command.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        first: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._printed = tempfile.TemporaryDirectory()
        self._process = _SERVER.Process(
            target=_run, args=(str(folder), arguments, self._printed.name, first, environment or {})
        )
        self._process.start()

    @property
    def code(self) -> int | None:
        """Exit status, minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit status, and what it printed on stdout and stderr."""
        self._process.join(120)
        assert self._process.exitcode is not None, "still running after two minutes"
        return self._process.exitcode, self._text("out"), self._text("err")

    def kill(self) -> None:
        """End it if it still runs, and remove what it printed."""
        self._process.kill()
        self._process.join()
        self._printed.cleanup()

    def _text(self, name: str) -> str:
        return Path(self._printed.name, name).read_text()


def _run(
    folder: str,
    arguments: tuple[str, ...],
    printed: str,
    first: Callable[[], None] | None,
    environment: dict[str, str],
) -> None:
    """In the new process: its streams, folder and variables, then the command."""
    import torch

    torch.set_num_threads(1)  # as in these tests, so that sums come out in one order
    for number, name in ((1, "out"), (2, "err")):
        with Path(printed, name).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["ntkdiag", *arguments]
    if first is not None:
        first()
    from ntkdiag.cli import main

    sys.exit(main())
