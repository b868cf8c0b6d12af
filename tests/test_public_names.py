"""The names of `import ntkdiag as nd`: all there, loaded on first use, and in line with what type checkers see."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import ntkdiag as nd


def seen_by_type_checkers() -> dict[str, str]:
    """Name → module it is imported from under TYPE_CHECKING."""
    tree = ast.parse(Path(nd.__file__).read_text())
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    assert len(guarded) == 1
    return {
        alias.name: str(node.module)
        for node in guarded[0].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name != "Any"
    }


@pytest.mark.parametrize("name", nd.__all__)
def test_every_public_name_loads(name: str) -> None:
    module, attribute = nd._PUBLIC[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not built yet")
    found = getattr(nd, name)
    loaded = sys.modules[module]
    assert found is (loaded if attribute is None else getattr(loaded, attribute))
    assert vars(nd)[name] is found  # the second use costs no look-up


def test_the_lists_agree() -> None:
    assert set(nd.__all__) == set(nd._PUBLIC) == set(seen_by_type_checkers()) == set(dir(nd))
    assert nd.__all__ == sorted(nd.__all__)


def test_type_checkers_see_the_same_thing() -> None:
    for name, source in seen_by_type_checkers().items():
        module, attribute = nd._PUBLIC[name]
        if attribute is None:
            assert f"{source}.{name}" == module
        else:
            assert source == module or source.startswith(f"{module}.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ntkdiag' has no attribute 'denoise'"):
        nd.denoise  # noqa: B018
    assert not hasattr(nd, "_private")


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
