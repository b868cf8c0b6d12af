"""The command line of a study: --size full|tiny and --out, and the settings that its config.json has for that size."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def parser(description: str | None, folder: Path) -> argparse.ArgumentParser:
    """A parser with --size and --out; `description` is the study's docstring, `folder` the study's own."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--size", choices=("full", "tiny"), default="full")
    made.add_argument("--out", type=Path, default=folder / "results")
    return made


def run(description: str | None, folder: Path, study: Callable[[str, Path], object]) -> None:
    """Parse, and run a study that takes its size and where its results go, on one thread."""
    chosen = parser(description, folder).parse_args()
    torch.set_num_threads(1)
    study(chosen.size, chosen.out)


def settings(folder: Path, size: str) -> dict[str, Any]:
    """What config.json in the study's folder has for a size."""
    return json.loads((folder / "config.json").read_text())[size]
