"""The environments of the peers, which the study makes itself: two with this package's torch, one with JAX 0.4.23."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOME = HERE / ".env"


def _with_torch(name: str) -> list[str]:
    """Arguments of pip; torch stays the one of constraints.txt, so that no other build of it is downloaded."""
    pins = [
        "--constraint",
        str(ROOT / "constraints.txt"),
        "--requirement",
        str(HERE / f"requirements-{name}.txt"),
    ]
    return [*pins, "torch", "numpy", "scipy", "pandas", "safetensors"]


# name → pip arguments
INSTALL = {
    "torch": _with_torch("torch"),
    "projections": _with_torch("projections"),
    "jax": ["--no-deps", "--requirement", str(HERE / "requirements-jax.txt")],
}


class NotMade(RuntimeError):
    """An environment is missing, or its packages could not be installed; the message is pip's last line."""


def python_of(environment: str) -> str:
    """The interpreter of an environment ("own" is the one that runs this).

    Raises:
        NotMade: it has not been made.
    """
    if environment == "own":
        return sys.executable
    python = HOME / environment / "bin" / "python"
    if not (HOME / environment / ".complete").exists():
        raise NotMade(f"environment '{environment}' is not made: run without --no-setup")
    return str(python)


def make(environment: str) -> None:
    """Make an environment, unless one with the same requirements exists.

    Raises:
        NotMade: pip failed.
    """
    folder = HOME / environment
    done, wanted = folder / ".complete", (HERE / f"requirements-{environment}.txt").read_text()
    if done.exists() and done.read_text() == wanted:
        return
    print(f"making {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    answer = subprocess.run([*pip, *INSTALL[environment]], cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        raise NotMade(f"pip: {answer.stderr.strip().splitlines()[-1]}")
    done.write_text(wanted)
