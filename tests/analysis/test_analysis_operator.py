"""The operator study at a tiny size: every way is timed, and all of them find the same eigenvalues."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.operator.run import met, study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("operator")
    study("tiny", out)
    return out


def test_every_way_is_timed_beside_its_parts(results: Path) -> None:
    times = pd.read_csv(results / "times.csv").set_index("way")
    assert list(times.index) == ["product", "vjp", "jvp", "product, in chunks", "vjp and jvp, in chunks"]
    assert (times.fastest <= times.seconds).all() and (times.seconds <= times.slowest).all()
    assert times.over_vjp_and_jvp[["vjp", "jvp"]].sum() == pytest.approx(1, abs=0.3)
    assert list(pd.read_csv(results / "ratios.csv").columns) == ["network", "ratio", "limit", "met"]


def test_all_ways_find_the_same_eigenvalues(results: Path) -> None:
    table = pd.read_csv(results / "eigenpairs.csv")
    assert list(table.way) == ["scipy's eigsh", "block Lanczos, 4", "block Lanczos, 1"]
    assert (table["rows"] == 64).all()
    assert (table.largest_residual < 1e-3).all()
    assert (table.largest_difference < 1e-4).all()
    assert (table.products > 3).all() and (table.products < 64 + 4).all()
    values = pd.read_csv(results / "eigenvalues.csv")
    assert (values.groupby("way").eigenvalue.diff().dropna() <= 0).all()
    assert {"cpu", "torch"} <= json.loads((results / "machine.json").read_text()).keys()


def test_a_missed_limit_is_said() -> None:
    times = pd.DataFrame(
        {
            "network": ["a", "a", "b"],
            "way": ["product", "vjp", "product"],
            "over_vjp_and_jvp": [1.05, 0.5, 1.2],
        }
    )
    assert met(times).met.tolist() == [True, False]
