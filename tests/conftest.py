"""What every test runs under: one thread, so that sums come out in one order on every machine, and no display."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import torch
from networks.case import DEVICE
from process_group import ProcessGroup

os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(1)
if DEVICE.type == "cuda":  # on by default, and no match for a tolerance of float32's rounding
    torch.backends.cudnn.allow_tf32 = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the two processes run first, so that one worker gets them all, and starts the processes alone."""
    items.sort(key=lambda item: "two_processes" not in getattr(item, "fixturenames", ()))


def pytest_collection_finish() -> None:
    """What is imported by now stays: Python's garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessGroup]:
    """Two processes of one group, for all tests that need them: starting them takes seconds."""
    group = ProcessGroup(2, tmp_path_factory.mktemp("two"))
    yield group
    group.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the rows that tests of diffusers' schedulers record: log-SNR of their own noising, and that which is read."""
    rows = [
        value
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        if report.when == "call"
        for name, value in report.user_properties
        if name == "scheduler"
    ]
    if not rows:
        return
    terminalreporter.section(
        "log-SNR at three timesteps of each scheduler: its own noising, and as it is read"
    )
    for name, options, state, own, ours in sorted(rows, key=lambda row: [str(cell) for cell in row[:3]]):
        left = f"{name} {options}".strip() + (f" ({state})" if state else "")
        terminalreporter.write_line(f"{left:<90} {_cell(own)} {_cell(ours)}".rstrip())


def _cell(value: str | list[float]) -> str:
    return value if isinstance(value, str) else " ".join(f"{number:9.4f}" for number in value) + "  "
