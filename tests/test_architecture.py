"""ARCHITECTURE.md and CONTRIBUTING.md name what exists: every path, and every room in the order that imports follow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_import_order import ROOMS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_path_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    spans = set(re.findall(r"`([\w./-]+(?:/|\.py|\.md))`", text))
    first_words = set(re.findall(r"^([\w./]+(?:/|\.py)) ", text, re.MULTILINE))  # of a listing
    assert len(spans) > 5
    folders = [ROOT, ROOT / "ntkdiag", *(ROOT / "ntkdiag").rglob("*/")]
    lost = {path for path in spans | first_words if not any((folder / path).exists() for folder in folders)}
    assert lost == set()


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE)
    assert rooms == [room for room in ROOMS if room in rooms]  # in the order that imports follow
    there = {path.stem for path in (ROOT / "ntkdiag").iterdir() if path.suffix in ("", ".py")}
    assert {name for name in there if not name.startswith("_")} == set(rooms)
