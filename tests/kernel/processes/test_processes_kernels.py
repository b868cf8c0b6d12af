"""Kernels that two or four processes measure together are those of one process, for every form of gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import shared_jobs
import torch
from process_group import ProcessGroup
from torch import Tensor

ENGINES = ("streaming", "sketch")
# A network for each form in which gradients are exchanged, and for each way of putting uses together.
NETWORKS = (
    "conv_2d", "conv_transposed_1d", "tied_embedding", "tied_transposed", "tied_over_time", "table_of_labels",
    "table_bag", "table_derived", "unused_parameters", "recompute_first", "recurrent_cells", "learned_queries",
)  # fmt: skip
# Networks whose kernel only the check finds to be wrong, in one process too.
NEED_THE_CHECK = ("recompute_first",)


def assert_same(found: Tensor, expected: Tensor, share: float) -> None:
    """Equal up to a share of the norm."""
    assert found.shape == expected.shape
    assert float((found - expected).norm()) < share * float(expected.norm())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_find_the_kernel_of_one(two_processes: ProcessGroup, name: str, engine: str) -> None:
    # without the check, which would leave what is wrong to another engine
    options = {"engine": engine, "sketch": 2, "check": name in NEED_THE_CHECK}
    found = two_processes.same(shared_jobs.of_case, name, 5, distributed=True, **options)
    expected = shared_jobs.of_case(name, 5, **options)
    assert_same(found["kernel"], expected["kernel"], 1e-12)
    assert found["coverage"] == expected["coverage"]


@pytest.mark.parametrize(
    ("name", "samples", "options"),
    [
        ("conv_2d", 5, {"engine": "exact", "memory": 5_000}),  # tiles of one sample
        ("conv_2d", 1, {"engine": "autograd"}),  # a process without samples
        ("solve_triangular", 5, {"engine": "streaming"}),  # a parameter that no rule serves, beside others
        ("solve_triangular", 5, {"engine": "sketch", "sketch": 2}),
    ],
)
def test_slow_engines(two_processes: ProcessGroup, name: str, samples: int, options: dict[str, Any]) -> None:
    found = two_processes.same(shared_jobs.of_case, name, samples, distributed=True, **options)
    expected = shared_jobs.of_case(name, samples, **options)
    assert_same(found["kernel"], expected["kernel"], 1e-12)
    assert found["coverage"] == expected["coverage"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", ["mlp", "dit"])
def test_models_across_noise_levels_in_float32(two_processes: ProcessGroup, model: str, engine: str) -> None:
    options = {"engine": engine, "sketch": 4, "dtype": torch.float32}
    found = two_processes.same(shared_jobs.of_model, model, 5, distributed=True, **options)
    expected = shared_jobs.of_model(model, 5, **options)
    assert found["coverage"] == expected["coverage"]
    assert_same(found["matrix"], expected["matrix"], 1e-6)
    assert_same(found["stderr"], expected["stderr"], 1e-5)  # a difference of two probes


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", [{"memory": 1}, {"memory": 60_000}, {"kernel": "residual"}])
def test_tiles_and_kernels(two_processes: ProcessGroup, options: dict[str, Any], engine: str) -> None:
    every = {"engine": engine, "sketch": 4, "check": False} | options
    if "kernel" in options:
        every |= {"probes": None}
    found = two_processes.same(_dit, distributed=True, **every)
    assert_same(found, _dit(**every), 1e-12)


def _dit(probes: None = None, **options: Any) -> Tensor:
    return shared_jobs.of_model("dit", 7, **options)["matrix"]


@pytest.mark.parametrize("engine", ENGINES)
def test_one_sample_leaves_a_process_idle(two_processes: ProcessGroup, engine: str) -> None:
    for samples in (1, 2):
        found = two_processes.same(shared_jobs.of_case, "conv_2d", samples, engine=engine, distributed=True)
        assert_same(found["kernel"], shared_jobs.of_case("conv_2d", samples, engine=engine)["kernel"], 1e-12)


def test_groups_add_up(two_processes: ProcessGroup) -> None:
    found = two_processes.same(shared_jobs.of_model, "mlp", 5, groups=_layer, distributed=True)
    alone = shared_jobs.of_model("mlp", 5, groups=_layer)
    layers = [name for name in alone if name not in ("matrix", "stderr", "coverage")]
    assert len(layers) > 2
    for name in layers:
        assert_same(found[name], alone[name], 1e-12)


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


@pytest.mark.parametrize("engine", (*ENGINES, "exact"))
def test_a_preconditioner(two_processes: ProcessGroup, engine: str) -> None:
    options = {"engine": engine, "sketch": 2, "check": False}
    found = two_processes.same(shared_jobs.preconditioned, distributed=True, **options)
    assert_same(found, shared_jobs.preconditioned(**options), 1e-12)


def test_a_network_that_takes_other_operations_in_another_process(two_processes: ProcessGroup) -> None:
    found = two_processes.same(shared_jobs.of_two_kinds, 6, distributed=True)
    expected = shared_jobs.of_two_kinds(6, engine="autograd", check=False)
    assert_same(found, expected, 1e-12)


def test_no_process_runs_the_samples_of_another(two_processes: ProcessGroup) -> None:
    for engine in ENGINES:
        for sizes in two_processes.run(shared_jobs.batches, 40, engine=engine):
            assert sizes.count(20) == 1  # its share, once
            assert all(size <= 2 for size in sizes if size != 20)  # the rehearsal and the check
    for sizes in two_processes.run(shared_jobs.batches, 40, engine="autograd"):
        assert sizes.count(20) == 1  # for the directions
        assert len(sizes) <= 1 + 20 + 4  # each of its share, and the check


def test_four_processes(tmp_path: Path) -> None:
    group = ProcessGroup(4, tmp_path)
    try:
        for engine, samples in zip(ENGINES, (3, 6), strict=True):  # a process without samples; unequal shares
            options = {"engine": engine, "sketch": 4, "dtype": torch.float32}
            found = group.same(shared_jobs.of_model, "dit", samples, distributed=True, **options)
            expected = shared_jobs.of_model("dit", samples, **options)
            assert_same(found["matrix"], expected["matrix"], 1e-6)
    finally:
        group.close()
