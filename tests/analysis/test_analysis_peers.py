"""The peers study at a tiny size, with the peers that need no environment of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.peers import environments, run
from analysis.peers.cases import NETWORKS, build, load_case, write_case
from analysis.stopwatch import reason_of
from ntkdiag.errors import InputError


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for environments and case files with nothing in it."""
    for module in (environments, run):
        monkeypatch.setattr(module, "HOME", tmp_path)
    return tmp_path


def study(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> pd.DataFrame:
    monkeypatch.setattr(sys, "argv", ["run", "--size", "tiny", "--no-setup", "--out", str(out), *words])
    run.main()
    return pd.read_csv(out / "peers.csv")


def test_rows_of_those_that_can_and_those_that_cannot(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--networks", "unet", "--peers", "vivit", "ntkdiag")
    table = study(monkeypatch, own_home / "out", *words)
    assert list(table.peer) == ["ntkdiag", "vivit"]
    assert list(table.status) == ["ok", "cannot"]
    assert (table.relative_error[:1] < 1e-5).all()
    assert (table.cold_seconds[:1] > 0).all()
    assert (table.peak_mib[:1] >= table.ready_mib[:1]).all()
    assert "without --no-setup" in table.reason[1]


def test_rows_of_an_earlier_run_stay_until_they_are_run_again(tmp_path: Path) -> None:
    earlier = tmp_path / "peers.csv"
    rows = [
        {"network": network, "peer": peer, "status": "ok", "warm_seconds": 1.0}
        for network, peer in (("dit2", "opacus"), ("mlp", "opacus"), ("mlp", "step"))
    ]
    run.merged(earlier, rows).to_csv(earlier, index=False)
    table = run.merged(earlier, [{"network": "mlp", "peer": "opacus", "status": "ok", "warm_seconds": 2.0}])
    found = list(zip(table.network, table.peer, table.warm_seconds, strict=True))
    assert found == [("mlp", "step", 1.0), ("mlp", "opacus", 2.0), ("dit2", "opacus", 1.0)]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_case_file_carries_the_network(network: str, tmp_path: Path) -> None:
    path = tmp_path / "case.npz"
    write_case(network, "tiny", path)
    built, loaded = build(network, "tiny"), load_case(network, "tiny", str(path))
    with torch.no_grad():
        output = loaded.module(*loaded.inputs)
        assert torch.equal(output, built.module(*built.inputs))
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["output"], output.numpy())
        truth = arrays["truth"]
        weights = sum(arrays[key].size for key in arrays if key.startswith("weight/"))
    assert truth.dtype == np.float64
    assert np.linalg.eigvalsh(truth).min() > 0
    assert weights == built.parameters


def test_the_reason_of_a_failure_fits_a_table() -> None:
    told = reason_of(ValueError("first line\nsecond " + "x" * 1000))
    assert told.startswith("ValueError: first line second x")
    assert len(told) < 350


def test_an_unknown_peer_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vivit"):
        study(monkeypatch, tmp_path, "--peers", "vivitt")


def test_requirements_are_pinned() -> None:
    for name in environments.INSTALL:
        text = (environments.HERE / f"requirements-{name}.txt").read_text()
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        assert all("==" in line for line in lines)
