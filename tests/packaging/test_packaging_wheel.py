"""Build the sdist and the wheel, look inside, install the wheel into an empty environment and run the command there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {
    str(path.relative_to(ROOT)) for kind in ("*.py", "*.toml") for path in (ROOT / "ntkdiag").rglob(kind)
} | {"ntkdiag/py.typed"}


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; neither this checkout nor the caller's packages are on its path."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))
    }
    environment |= {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, from a copy of the checkout without anything built before, and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("packaging")
    copy = folder / "copy"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    for name in ("ntkdiag", "tests", "examples"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", cwd=copy)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_the_package_and_its_licence_alone(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    information = {name for name in names if name.startswith(f"ntkdiag-{PROJECT['version']}.dist-info/")}
    assert names - information == MODULES
    assert any(name.endswith("licenses/LICENSE") for name in information)


def test_the_sdist_holds_what_the_wheel_is_built_from(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert MODULES | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= names
    assert not {name for name in names if name.startswith(("tests", "examples"))}


def test_the_wheel_says_what_pyproject_says(built: tuple[Path, Path]) -> None:
    found = metadata_of(built[1])
    assert found["Name"] == "ntkdiag" and found["Version"] == PROJECT["version"]
    assert found["License-Expression"] == PROJECT["license"]
    assert found["Requires-Python"] == PROJECT["requires-python"]
    needed = [line for line in found.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(needed) == sorted(PROJECT["dependencies"])


def needed(names: Iterable[str]) -> dict[str, Distribution]:
    """The installed distributions that these requirements bring, by name; not those of an extra or another system."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(name)
        waiting += map(Requirement, found[name].requires or ())
    return found


def link(installed: Distribution, site: Path) -> None:
    """Put what a distribution installed into another site-packages, by links."""
    for part in {
        file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")
    }:
        target = site / part
        if not target.exists():
            target.symlink_to(Path(str(installed.locate_file(part))).resolve())


def test_the_command_runs_with_its_own_dependencies_alone(built: tuple[Path, Path], tmp_path: Path) -> None:
    """What the wheel's own dependencies bring is enough: no test tool, no optional library."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    bin_folder = tmp_path / "venv" / "bin"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    brought = needed(PROJECT["dependencies"])
    assert "torch" in brought and "pytest" not in brought and "diffusers" not in brought
    for installed in brought.values():
        link(installed, site)
    pip = [sys.executable, "-m", "pip", "--python", bin_folder / "python", "--disable-pip-version-check"]
    run(*pip, "install", "--no-compile", "--no-deps", built[1], cwd=tmp_path)

    version = run(bin_folder / "ntkdiag", "--version", cwd=tmp_path)
    assert version == f"ntkdiag {PROJECT['version']}\n"
    module = run(bin_folder / "python", "-c", "import ntkdiag; print(ntkdiag.__file__)", cwd=tmp_path)
    assert Path(module.strip()).is_relative_to(tmp_path / "venv")
    run(
        bin_folder / "python",
        "-c",
        "import importlib.util as u; assert u.find_spec('pytest') is None",
        cwd=tmp_path,
    )
    run(bin_folder / "ntkdiag", "demo", "--quick", "--out", "demo", cwd=tmp_path)
    assert "data:image/svg" in (tmp_path / "demo" / "page.html").read_text()
