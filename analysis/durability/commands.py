"""Commands in processes of their own, forked from one that has imported what they need."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch._dynamo", "pandas", "ntkdiag.cli", "ntkdiag.kernel"])


class Command:
    """A running command; `arguments` are what follows `ntkdiag`."""

    def __init__(self, *arguments: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._errors = Path(self._folder.name, "errors")
        self._process = _SERVER.Process(target=_run, args=(arguments, str(self._errors)))
        self._process.start()

    @property
    def code(self) -> int | None:
        """Exit status, minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> None:
        """Wait for its end, but no longer than that."""
        self._process.join(seconds)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit status, and what it printed on stderr."""
        self._process.join()
        return self._process.exitcode or 0, self._errors.read_text() if self._errors.exists() else ""


def _run(arguments: tuple[str, ...], errors: str) -> None:
    import torch

    torch.set_num_threads(1)
    with Path(os.devnull).open("wb") as nothing, Path(errors).open("wb") as file:
        os.dup2(nothing.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from ntkdiag.cli import main

    sys.exit(main(list(arguments)))
