"""What several tests of commands share: arguments of small runs, and what a folder holds."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from torch import distributed

from ntkdiag.cli import main

TINY = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1", "--data", "mixture"]
QUICKLY = ["--buckets", "4", "--samples", "8", "--probes", "2", "--controls", "1"]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder, compiled Python left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def command(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """A command in this process as if torchrun had started it: exit code, stdout, stderr."""
    rank = distributed.get_rank()
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    before = dict(os.environ)
    out, err = io.StringIO(), io.StringIO()
    os.environ.update(torchrun)
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main(list(arguments))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return code, out.getvalue(), err.getvalue()
