"""The study of processes at a tiny size: what it finds, and what it fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from process_group import ProcessGroup

from analysis.processes import networks, run
from analysis.processes.run import HERE

CONFIG = json.loads((HERE / "config.json").read_text())


def test_kernels_of_two_processes_are_compared_with_those_of_one(
    two_processes: ProcessGroup, tmp_path: Path
) -> None:
    tiny = CONFIG["tiny"]
    two_processes.run(run.every_kernel, tiny, tmp_path)
    rows = json.loads((tmp_path / "rows-2.json").read_text())
    for asked in run.kernels(tiny):
        row, matrix = run.measured_kernel(asked, 1, tiny)
        name = "-".join(map(str, asked.values()))
        torch.save(matrix, tmp_path / f"{name}-1-0.pt")
        rows.append(row)
    found = run.compared(pd.DataFrame(rows), tmp_path)
    assert len(found) == 8
    assert (found["difference"] < 1e-6).all()
    assert (found["same_in_all"] == 1).all()
    assert (found[["passes", "products", "peak_bytes", "planned_bytes"]] > 0).all(axis=None)
    assert (found.loc[found["processes"] == 1, "efficiency"] == 1).all()


def test_rates_are_found_again() -> None:
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({name: generator.uniform(1, 5, 40) for name in vars(run.Timed())})
    rows["network"] = ["a", "b"] * 20
    rates = run.Rates(1.1, 0.4, 0.7, 0.02, 0.3)
    rows["cpu_seconds"] = run.seconds_of(rows, rates)
    assert vars(run.fitted(rows)) == pytest.approx(vars(rates), rel=1e-6)
    assert run.predicted(rows)["error"].abs().max() < 1e-6


def test_the_networks_of_the_study() -> None:
    names = {name for name, *_ in CONFIG["full"]["kernels"]}
    assert names == set(networks.NAMES)
    module, inputs = networks.build("tied", 3)
    assert module(*inputs).shape[0] == 3
