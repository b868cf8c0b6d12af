"""Run the suite in this environment and print one row of the table in CONTRIBUTING.md; `make versions` calls it."""

from __future__ import annotations

import collections
import platform
import sys
from importlib import metadata

import pytest

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "scikit-learn",
    "safetensors",
    "pydantic",
    "typer",
    "rich",
)
# tests/packaging installs the wheel with the pinned versions; tests/docs needs what builds the manual.
LEFT_OUT = ("tests/packaging", "tests/docs")


class Outcomes:
    """Counts what became of each test; a failed set-up counts as a failure."""

    def __init__(self) -> None:
        self.count: collections.Counter[str] = collections.Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the call itself, and the set-up or tear-down unless it passed."""
        if report.when == "call" or report.outcome != "passed":
            self.count[report.outcome] += 1


def main(name: str, options: list[str]) -> int:
    """Run the suite and print the row; the exit code is pytest's."""
    outcomes = Outcomes()
    ignored = [f"--ignore={folder}" for folder in LEFT_OUT]
    code = pytest.main(["-n", "auto", "--tb=short", "-rs", *ignored, *options], plugins=[outcomes])
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    cells = (
        name,
        f"Python {platform.python_version()}, {versions}",
        *(str(outcomes.count[outcome]) for outcome in ("passed", "failed", "skipped")),
    )
    print("| " + " | ".join(cells) + " |")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
