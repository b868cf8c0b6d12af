"""The order of the rooms: each imports only from rooms before it or from itself, and never in a circle.

Imports are read from the source, those for type checkers and those inside functions as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ntkdiag

PACKAGE = Path(ntkdiag.__file__).parent
ROOMS = (
    "errors",
    "notebook",
    "later",
    "provenance",
    "confidence",
    "randomness",
    "signals",
    "progress",
    "distributed",
    "tensor_files",
    "conditions",
    "process",
    "data",
    "models",
    "modes",
    "adapters",
    "denoiser",
    "state_dicts",
    "kernel",
    "spectra",
    "recoverability",
    "weights",
    "diagnosis",
    "claims",
    "train",
    "trust",
    "integrations",
    "report",
    "cli",
    "__main__",
)
# Training takes weights that it is handed: what measures them is none of its business.
CLOSED = {"train": {"kernel", "spectra", "recoverability", "diagnosis", "claims", "trust"}}


def module_name(path: Path, package: Path = PACKAGE) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    return {module_name(path, package): path for path in sorted(package.rglob("*.py"))}


def imported(path: Path, name: str, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a file imports; of `from a import b` it is a.b where that is a module."""
    top = name.partition(".")[0]
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == top)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.partition(".")[0] == top:
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    yield inner if inner in known else source


def room(module: str) -> str:
    """The room a module lies in; empty for the package itself."""
    return ".".join(module.split(".")[1:2])


def graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    known = modules(package)
    return {name: set(imported(path, name, known)) for name, path in known.items() if room(name)}


def violations(imports: dict[str, set[str]]) -> list[str]:
    """Imports against the order, in words."""
    found = []
    for name, sources in imports.items():
        own = room(name)
        for source in sources:
            other = room(source)
            late = not other or ROOMS.index(other) > ROOMS.index(own)
            if late or other in CLOSED.get(own, set()):
                found.append(f"{name} imports {source}")
    return found


def test_every_module_lies_in_a_room_of_the_list() -> None:
    assert {room(name) for name in graph()} <= set(ROOMS)


def test_rooms_import_from_rooms_before_them() -> None:
    assert violations(graph()) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail("imports in a circle: " + " → ".join(error.args[1]))


def test_every_import_of_the_package_exists() -> None:
    known = modules()
    missing = {
        (name, source) for name, sources in graph().items() for source in sources if source not in known
    }
    assert not missing


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package with one of each offence, to see that none goes unnoticed."""
    files = {
        "__init__.py": "",
        "errors.py": "def f():\n    from ntkdiag import process\n",
        "process/__init__.py": "",
        "process/a.py": "import ntkdiag.errors\nfrom ntkdiag.process.b import x\n",
        "process/b.py": "from .a import y\nfrom ..errors import z\n",
        "process/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ntkdiag.kernel import k\n",
        "kernel/__init__.py": "from ntkdiag import gram\nimport numpy\n",
        "train/__init__.py": "from ntkdiag.kernel import k\nfrom ntkdiag.weights import w\n",
        "weights/__init__.py": "from ntkdiag.kernel import k\n",
    }
    for name, text in files.items():
        path = tmp_path / "ntkdiag" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "ntkdiag"


def test_offences_are_noticed(house: Path) -> None:
    found = graph(house)
    assert found["ntkdiag.process.b"] == {"ntkdiag.process.a", "ntkdiag.errors"}
    assert sorted(violations(found)) == [
        "ntkdiag.errors imports ntkdiag.process",
        "ntkdiag.kernel imports ntkdiag",
        "ntkdiag.process.c imports ntkdiag.kernel",
        "ntkdiag.train imports ntkdiag.kernel",
    ]
    with pytest.raises(CycleError):
        TopologicalSorter(found).prepare()
