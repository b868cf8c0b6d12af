"""Progress is shown on a terminal and in a notebook, by default from Python too, and never in a pipe."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import ntkdiag as nd
from ntkdiag import progress
from ntkdiag.progress import reporting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ZMQInteractiveShell:
    """What IPython calls the shell of a notebook."""


@pytest.fixture
def measured() -> Any:
    network = nd.models.build("mlp", (2,), width=4, depth=1)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")

    def measure(**options: Any) -> Any:
        return nd.measure(denoiser, nd.data.load("mixture"), 2, samples=4, probes=1, **options)

    return measure


@pytest.mark.parametrize("given", [{}, {"progress": True}, {"progress": False}])
def test_measure_draws_bars_on_a_terminal_unless_told_not_to(
    given: dict[str, bool], measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        measured(**given)
        drawn = "kernels of the trained network" in stream.getvalue()
        assert drawn is (isinstance(stream, Terminal) and given.get("progress", True))


def test_a_callback_takes_the_place_of_the_bars(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, steps = Terminal(), list[tuple[str, int, int]]()
    monkeypatch.setattr("sys.stderr", stream)
    measured(progress=lambda *step: steps.append(step))
    assert stream.getvalue() == "" and steps[-1] == ("kernels of the trained network", 3, 3)


def test_a_notebook_shows_one_line_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Handle:
        def update(self, shown: dict[str, str], raw: bool) -> None:
            assert raw
            lines.append(shown["text/plain"])

    def display(shown: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw and display_id and not lines
        lines.append(shown["text/plain"])
        return Handle()

    clock = iter([100.0, 100.0, 110.0, 110.0, 120.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=ZMQInteractiveShell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    with reporting(None) as report:
        for done in range(3):
            report("kernels", done, 20)
    assert lines == ["kernels  0/20", "kernels  1/20  3:10 left", "kernels  2/20  3:00 left"]
    with reporting(False) as report:
        report("kernels", 3, 20)
    assert len(lines) == 3
