"""The examples in docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from functools import cache, reduce
from pathlib import Path

import numpy as np
import pytest
import torch

import ntkdiag

PACKAGE = Path(ntkdiag.__file__).parent
# What an example may use without making it.
NAMES = {"nd": ntkdiag, "np": np, "torch": torch}
# What the code of a module or its example imports, which not every user has.
NEEDS = {
    "ntkdiag.integrations.accelerate": "accelerate",
    "ntkdiag.integrations.lightning": "pytorch_lightning",
}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def examples() -> dict[str, object]:
    """A small network, data and what was measured of it."""
    network = ntkdiag.models.build("mlp", (2,), width=16)
    denoiser = ntkdiag.Denoiser(network, ntkdiag.schedules.cosine(), "v", call="log_snr")
    data = ntkdiag.data.load("mixture")
    diagnosis = ntkdiag.measure(denoiser, data, 4, samples=8)
    return {"denoiser": denoiser, "data": data, "diagnosis": diagnosis}


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages draw two figures; tests/report draws all of them."""
    from ntkdiag.report.page import page

    few = {name: ntkdiag.report.FIGURES[name] for name in ("effective_rank", "trace")}
    monkeypatch.setattr(page, "FIGURES", few)
    monkeypatch.setattr("ntkdiag.report.render.FIGURES", few)


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_docstring_examples(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if module_name(path) in NEEDS:
        pytest.importorskip(NEEDS[module_name(path)])
    module = importlib.import_module(module_name(path))
    outcome = doctest.testmod(module, extraglobs=NAMES | examples(), optionflags=doctest.ELLIPSIS)
    assert outcome.attempted > 0 or "# doctest: +SKIP" in path.read_text()
    assert outcome.failed == 0


@pytest.mark.parametrize("name", [n for n in ntkdiag.__all__ if not inspect.ismodule(getattr(ntkdiag, n))])
def test_every_class_and_function_of_the_root_has_an_example(name: str) -> None:
    """In its docstring, or those of its members."""
    found = getattr(ntkdiag, name)
    members = list(vars(found).values()) if inspect.isclass(found) else []
    assert any(">>> " in (getattr(each, "__doc__", None) or "") for each in (found, *members))


def reference() -> list[str]:
    """The names in the manual's reference."""
    pages = sorted((PACKAGE.parent / "docs" / "reference").glob("*.md"))
    return [line[4:] for page in pages for line in page.read_text().splitlines() if line.startswith("::: ")]


def named(path: str) -> object:
    """What a dotted path means: a function before the module of its name."""
    parts = path.split(".")
    for count in range(1, len(parts)):
        try:
            return reduce(getattr, parts[count:], importlib.import_module(".".join(parts[:count])))
        except AttributeError:
            continue
    raise AssertionError(f"{path} in docs/reference is no name of this package")


@pytest.mark.parametrize("path", reference())
def test_every_class_and_function_of_the_reference_has_an_example(path: str) -> None:
    """In its docstring, or those of its members; a table of constants has none."""
    found = named(path)
    if inspect.ismodule(found) or not callable(found):
        return
    members = list(vars(found).values()) if inspect.isclass(found) else []
    assert any(">>> " in (getattr(each, "__doc__", None) or "") for each in (found, *members)), path


def test_an_example_that_is_wrong_fails() -> None:
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None).failed == 1
