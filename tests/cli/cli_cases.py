"""What several tests of commands share: arguments of small runs, and what a folder holds."""

from __future__ import annotations

from pathlib import Path

TINY = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1", "--data", "mixture"]
QUICKLY = ["--buckets", "4", "--samples", "8", "--probes", "2", "--controls", "1"]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder, compiled Python left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }
