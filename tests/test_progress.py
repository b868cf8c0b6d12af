"""Progress is shown on a terminal and in a notebook, by default from Python too, and never in a pipe."""

from __future__ import annotations

import io
import sys
from pathlib import Path
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
        drawn = "of the trained network" in stream.getvalue()
        assert drawn is (isinstance(stream, Terminal) and given.get("progress", True))


def test_a_callback_takes_the_place_of_the_bars(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, steps = Terminal(), list[tuple[str, int, int]]()
    monkeypatch.setattr("sys.stderr", stream)
    measured(progress=lambda *step: steps.append(step))
    assert stream.getvalue() == "" and steps[0][1] == 0 and steps[-1][1] == steps[-1][2] == steps[0][2]


def test_one_count_goes_over_networks_kernels_and_noise_levels(measured: Any) -> None:
    steps = list[tuple[str, int, int]]()
    other = nd.models.build("mlp", (2,), seed=1, width=4, depth=1)
    refs = {"untrained": nd.Denoiser(other, nd.schedules.cosine(), "v", call="log_snr")}
    measured(progress=lambda *step: steps.append(step), refs=refs, full=nd.diagnosis.FullSettings(top_k=1))
    names, done, total = zip(*steps, strict=True)
    assert {name.partition(" · ")[0] for name in names} == {"measuring"}
    assert len(set(total)) == 1 and list(done) == sorted(done) and (done[0], done[-1]) == (0, total[0])
    assert "measuring · full kernel of the untrained network, noise level 2 of 2" in names


def test_finished_parts_of_an_interrupted_run_are_no_work(measured: Any, tmp_path: Path) -> None:
    totals = []
    for _ in range(2):
        steps = list[tuple[str, int, int]]()
        measured(progress=lambda *step, steps=steps: steps.append(step), resume=tmp_path / "parts")
        totals.append((steps[0][2], steps[-1][2]))
    assert totals[0][0] == totals[0][1] == totals[1][0] and totals[1][1] == 0


def test_the_bar_says_how_much_time_is_left_however_long_a_step_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, clock = Terminal(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("rich.console.monotonic", lambda: clock[0])
    with progress.progress_bar() as report:
        for done in range(4):
            report("measuring · a", done, 10)
            clock[0] += 100.0
    assert "3/10" in stream.getvalue() and "0:11:40" in stream.getvalue()


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
