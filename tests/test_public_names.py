"""The names of `import ntkdiag as nd`: all there, loaded on first use, and in line with what type checkers see."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import ntkdiag as nd


def seen_by_type_checkers() -> dict[str, str]:
    """Name → module it is imported from under TYPE_CHECKING; `import name as name` is what re-exports it."""
    tree = ast.parse(Path(nd.__file__).read_text())
    guarded = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    assert len(guarded) == 1 and ast.unparse(guarded[0].test) == "TYPE_CHECKING"
    return {
        str(alias.asname): str(node.module)
        for node in guarded[0].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname
    }


@pytest.mark.parametrize("name", nd.__all__)
def test_every_public_name_loads(name: str) -> None:
    module, _, attribute = nd._PUBLIC[name].partition(":")
    found = getattr(nd, name)
    loaded = import_module(module)
    assert found is (getattr(loaded, attribute) if attribute else loaded)
    assert vars(nd)[name] is found  # the second use costs no look-up


def test_the_lists_agree() -> None:
    assert set(nd.__all__) == set(seen_by_type_checkers()) == set(dir(nd)) - {"__version__"}
    assert nd.__all__ == sorted(nd.__all__)


def test_type_checkers_see_the_same_thing() -> None:
    for name, source in seen_by_type_checkers().items():
        module, _, attribute = nd._PUBLIC[name].partition(":")
        if attribute:
            assert attribute == name
            assert source == module or source.startswith(f"{module}.")
        else:
            assert f"{source}.{name}" == module


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ntkdiag' has no attribute 'denoise'"):
        nd.denoise  # noqa: B018
    assert not hasattr(nd, "_private")


def test_the_version_is_the_one_that_was_installed() -> None:
    assert nd.__version__ == metadata.version("ntkdiag")
    assert "__version__" in dir(nd) and "__version__" not in nd.__all__


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, ntkdiag, ntkdiag.errors, ntkdiag.provenance; dir(ntkdiag); "
        "print(sorted({'torch', 'numpy', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_name_survives_the_import_of_its_module() -> None:
    import ntkdiag.diagnosis.measure
    import ntkdiag.kernel.gram

    assert callable(nd.gram) and callable(nd.measure)
    assert callable(ntkdiag.kernel.gram) and callable(ntkdiag.diagnosis.measure)
