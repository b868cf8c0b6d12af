"""The accelerator study on the CPU at a tiny size: that the script is ready, not what a card does."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch.autograd import DeviceType

from analysis.accelerator import card, run
from ntkdiag.kernel.streaming.contraction import contract

METER = card.Meter(torch.device("cpu"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accelerator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run", "--device", "cpu", "--size", "tiny", "--out", str(out)])
        run.main()
    return out


def test_every_study_writes_its_table(results: Path) -> None:
    names = {path.name for path in results.iterdir()}
    assert names == {"machine.json", *(f"{name}.csv" for name in run.STUDIES)}
    assert json.loads((results / "machine.json").read_text())["unfinished"] == []
    for name in run.STUDIES:
        assert "reason" not in pd.read_csv(results / f"{name}.csv")


def test_a_profile_names_operations(results: Path) -> None:
    table = pd.read_csv(results / "profile.csv")
    whole = table[table.kind == "whole"]
    assert list(whole.way) == ["exact", "sketch"]
    assert (whole.host_seconds > 0).all()
    assert "aten::addmm" in set(table.name)


def test_accuracy_stands_beside_time(results: Path) -> None:
    table = pd.read_csv(results / "precision.csv").set_index(["precision", "way"])
    error = table.relative_error
    assert error["float32", "exact"] < 1e-5
    assert error["float32", "torch.func"] < 1e-5
    assert 1e-4 < error["bfloat16", "exact"] < 0.1
    assert pd.isna(error["TF32", "training step"])
    assert (table.warm_seconds > 0).all()


def test_times_stand_beside_a_training_step(results: Path) -> None:
    for name, column in (("tiles", "steps"), ("growth", "steps"), ("measure", "steps_of_all_samples")):
        assert (pd.read_csv(results / f"{name}.csv")[column] > 0).all()


def test_the_time_of_kernels_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profiler lists it with the kernel and with the operation that launches it."""
    common = {"count": 2, "self_cpu_time_total": 1e6, "is_user_annotation": False}
    events = [
        SimpleNamespace(key="aten::mm", device_type=DeviceType.CPU, self_device_time_total=3e6, **common),
        SimpleNamespace(
            key="cudaLaunchKernelExC", device_type=DeviceType.CPU, self_device_time_total=0, **common
        ),
        SimpleNamespace(key="gemm", device_type=DeviceType.CUDA, self_device_time_total=3e6, **common),
    ]
    found = contextlib.nullcontext(SimpleNamespace(key_averages=lambda: events))
    monkeypatch.setattr(card, "profile", lambda activities: found)
    whole, *others = card.where_time_goes(lambda: None, METER)
    assert (whole["card_seconds"], whole["calls"], whole["waits"]) == (3.0, 2, 0)
    assert [each["name"] for each in others] == ["aten::mm", "cudaLaunchKernelExC", "gemm"]


def test_rows_are_written_as_they_come_and_an_error_ends_one_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"

    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        assert list(pd.read_csv(path).a) == [1]
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    assert run.write_rows(path, rows(), lambda: False)
    assert pd.read_csv(path).reason[1] == "OutOfMemoryError: CUDA out of memory. Tried to allocate"
    times = iter([False, False, True])
    assert not run.write_rows(path, iter([{"a": n} for n in range(9)]), lambda: next(times))
    assert list(pd.read_csv(path).a) == [0, 1]


def test_a_way_that_fails_is_a_row_with_its_reason() -> None:
    def fails() -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert run.tried(fails) == {"reason": "OutOfMemoryError: CUDA out of memory"}


def test_tile_size_and_tf32_are_put_back_after_an_error() -> None:
    kept, before = dict(contract.TILE_BYTES), torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), METER.precision(not before), run.tile_size(METER.device, 1):
        assert contract.TILE_BYTES["cpu"] == 1024**2
        assert torch.backends.cuda.matmul.allow_tf32 is not before
        raise KeyError
    assert kept == contract.TILE_BYTES
    assert torch.backends.cuda.matmul.allow_tf32 is before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run"])
    with pytest.raises(SystemExit, match="--device cpu --size tiny"):
        run.main()
