"""The manual builds strictly and without a network, and describes every public name."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import DOCS, PAGES, ROOT, prose

import ntkdiag as nd

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
# Paths in code spans: `tests/docs/x.py`, `analysis/coverage/results/coverage.csv`.
PATH = re.compile(r"`((?:ntkdiag|tests|analysis|figures|docs|examples)/[\w./-]+)`")
PUBLIC_MODULES = (
    "ntkdiag",
    "ntkdiag.claims",
    "ntkdiag.data",
    "ntkdiag.kernel",
    "ntkdiag.models",
    "ntkdiag.process.schedules",
    "ntkdiag.recoverability",
    "ntkdiag.report",
    "ntkdiag.spectra",
    "ntkdiag.train",
    "ntkdiag.trust",
    "ntkdiag.weights",
)
# Lists that the reference leaves to the tables of other pages.
NOT_DESCRIBED = {
    *(
        "ANSWER_COLUMNS",
        "CLAIMS",
        "COLUMNS",
        "CONVENTIONS",
        "DATASETS",
        "FIGURES",
        "MODELS",
        "PRESETS",
        "SCHEDULES",
    ),
    *("data", "models", "report", "schedules", "spectra", "train", "trust", "weights", "inputs"),
}


def described() -> set[str]:
    """Last parts of the names under `:::` in the reference."""
    text = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    return {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings
    }


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    names = set(importlib.import_module(module).__all__) - NOT_DESCRIBED
    assert names - described() == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = prose(page)
    for target, anchor in LINK.findall(text):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in slugs(file), f"{target}#{anchor}"
    for path in PATH.findall(text):
        assert (ROOT / path).exists(), path


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_the_manual_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "mathematics.html"} <= {path.name for path in pages}
    for path, text in pages.items():
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(?:https?:)?//", text), path
        assert "arithmatex" not in text, f"a formula of {path.name} was not converted"
        assert "{{ help" not in text, path
    assert "<math" in (tmp_path / "mathematics.html").read_text()
    assert "Usage: ntkdiag measure" in (tmp_path / "reference" / "command_line.html").read_text()
    for name in set(nd.__all__) - NOT_DESCRIBED:
        assert any(re.search(rf'id="ntkdiag\.[\w.]*\b{name}"', text) for text in pages.values()), name
