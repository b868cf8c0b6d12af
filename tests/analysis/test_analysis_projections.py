"""The study of projected gradients at a tiny size, with this package's own ways."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.peers import approximate, projections
from analysis.peers.cases import write_case


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("cases") / "mlp.npz"
    write_case("mlp", "tiny", path)
    return str(path)


def test_errors_and_seconds_of_a_sketch_stand_beside_a_step(case: str) -> None:
    exact = approximate.measured("ntkdiag", "mlp", "tiny", case, 0, 1)
    short, long = (approximate.measured("sketch", "mlp", "tiny", case, k, 4) for k in (2, 12))
    assert exact["correlation_error"] < 1e-6
    assert exact["correlation_error"] < long["correlation_error"] < short["correlation_error"]
    assert abs(exact["rank_error"]) < 1e-6 < short["rank_error"]
    assert short["steps"] > 0
    assert short["parameters"] == short["covered"]


def test_the_kernel_of_projections_is_their_products(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(len(approximate.loaded("mlp", "tiny", case)[1]), 5, dtype=torch.float64)
    way = SimpleNamespace(columns=lambda case, length, seed: lambda: rows)
    monkeypatch.setitem(sys.modules, "analysis.peers.way_made_up", way)
    found = approximate.measured("made_up", "mlp", "tiny", case, 5, 1)
    kernel = (rows @ rows.T).numpy()
    expected = approximate.errors_of([kernel], approximate.loaded("mlp", "tiny", case)[1])
    assert found["relative_error"] == pytest.approx(expected["relative_error"])
    assert found["covered"] == found["parameters"]


def test_a_way_that_fails_is_a_row_with_its_reason(case: str) -> None:
    found = approximate.measured("sketch", "mlp", "tiny", case, -1, 1)
    assert found["status"] == "cannot"
    assert "sketch" in found["reason"]


def test_normal_numbers_have_the_error_of_a_sampled_correlation(case: str) -> None:
    """(1 − ρ²)/√m for large m, root mean square over pairs."""
    found = approximate.law("trak", "mlp", "tiny", case, 100, 300)
    _, truth = approximate.loaded("mlp", "tiny", case)
    pairs = approximate.correlations(truth)[np.triu_indices(len(truth), 1)]
    scale = np.sqrt(np.mean((1 - pairs**2) ** 2))
    errors = [each["correlation_error"] * each["length"] ** 0.5 / scale for each in found]
    assert [each["length"] for each in found] == [400, 1600, 6400]
    assert errors == pytest.approx([1, 1, 1], abs=0.1)


def test_errors_by_hand() -> None:
    truth = np.array([[4.0, 1.0], [1.0, 1.0]])
    off = np.array([[4.0, 1.2], [1.2, 1.0]])
    found = approximate.errors_of([truth, off], truth)
    assert found["correlation_error"] == pytest.approx(0.1 / 2**0.5)
    assert found["relative_error"] == pytest.approx((2 * 0.2**2 / 19) ** 0.5 / 2**0.5)
    assert found["rank_error"] == pytest.approx(abs(found["rank_shift"]) * 2**0.5)


@pytest.mark.parametrize(("wanted", "length"), [(0.1, 100), (0.2, 25), (0.05, 400), (1.0, 1), (0.1414, 50)])
def test_the_length_of_equal_error(wanted: float, length: int) -> None:
    lengths = np.array([25, 100, 200])
    curve = pd.DataFrame({"length": lengths, "error": 1 / np.sqrt(lengths)})
    assert projections.length_of_equal_error(curve.iloc[::-1], "error", wanted) == pytest.approx(
        length, abs=0.5
    )


def test_seconds_of_a_long_projection_follow_a_line_and_it_has_no_error() -> None:
    def answer(length: int, rounds: int) -> dict[str, Any]:
        seconds = {"cold_processor_seconds": 3.0 + 2.0 * length, "step_processor_seconds": 0.5}
        return {"status": "ok", "correlation_error": 0.1, "peak_mib": 5.0, **seconds}

    found = projections.at_length(answer, 1000, 40)
    assert found["processor_seconds"] == pytest.approx(2003.0)
    assert found["steps"] == pytest.approx(4006.0)
    assert found["measured_length"] == 40
    assert "correlation_error" not in found
    assert projections.at_length(answer, 40, 40) == answer(40, 1)


def test_projections_are_measured_at_the_error_of_the_sketches(tmp_path: Path) -> None:
    """A curve that falls as 2/√m, and sketches with errors 0.1 and 0.05 of correlation and rank."""
    asked: list[tuple[str, int]] = []

    def answer(way: str, network: str, length: int, count: int, *words: str) -> Any:
        asked.append((way, length))
        if words:
            return [{"length": m, **dict.fromkeys(projections.ERRORS, 2 / m**0.5)} for m in (16, 64)]
        error = {64: 0.1, 128: 0.05}.get(length, 0.0)
        return {"status": "ok", "parameters": 10, **dict.fromkeys(projections.ERRORS, error)}

    config = {
        "kept": {"ntkdiag": [0], "sketch": [64, 128]}, "equal_to": [64, 128], "rounds": {"mlp": 2}, "parts": 4,
        "curve": {"dattri_mask": {"mlp": 64}}, "most_numbers": {"mlp": 1e9},
    }  # fmt: skip
    projections.study("mlp", config, answer, projections.Tables(tmp_path))
    assert asked[-2:] == [("dattri_mask", 400), ("dattri_mask", 1600)]
    table = pd.read_csv(tmp_path / "projections.csv")
    assert list(table.equal_to.dropna()) == [64, 128]
    assert list(pd.read_csv(tmp_path / "curves.csv").length) == [16, 64]
