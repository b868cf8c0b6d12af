"""Networks that `fully_shard` has sharded over processes: the kernel is that of the whole network, and training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sharded_jobs
import torch
from process_group import ProcessGroup

pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 7), reason="fully_shard does not run on a CPU before torch 2.7"
)


@pytest.mark.parametrize(
    ("kind", "engine"), [("left gathered", "streaming"), ("tied", "streaming"), ("grouped", "sketch")]
)
def test_the_kernel_is_that_of_the_whole_network(two_processes: ProcessGroup, kind: str, engine: str) -> None:
    found = two_processes.same(sharded_jobs.fully_sharded, kind, engine=engine, sketch=2)
    whole = sharded_jobs.fully_sharded(kind, shard=False, engine=engine, sketch=2)
    torch.testing.assert_close(found["kernel"], whole["kernel"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found["gradient"], whole["gradient"], rtol=1e-12, atol=1e-12)
    assert found["pieces"] == 6  # all parameters are sharded again
    assert found["heard"]  # hooks of the network's own run


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("plain", {"dtype": torch.float32, "samples": 7, "memory": 20_000}),  # several sweeps
        ("plain", {"engine": "sketch", "sketch": 2, "samples": 2}),  # compared with each sample alone
        ("odd", {}),
    ],
)
def test_one_block_is_gathered_at_a_time(
    two_processes: ProcessGroup, kind: str, options: dict[str, Any]
) -> None:
    found = two_processes.same(sharded_jobs.in_blocks, kind, **options)
    whole = sharded_jobs.in_blocks(kind, distributed=False, **options)
    error = (found["kernel"] - whole["kernel"]).norm() / whole["kernel"].norm()
    assert error < (1e-6 if "dtype" in options else 1e-12)
    assert found["coverage"] == whole["coverage"]
    assert found["most"] == found["root and largest"] < found["everything"] / 2
    assert found["pieces"] == 38  # all parameters are sharded again


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("without rule", "blocks.2.first.weight", "exact (cdist: no rule; "),
        ("transformed", "blocks.0.first.weight", "linear ("),
    ],
)
def test_what_cannot_run_a_block_at_a_time_is_gathered_whole(
    two_processes: ProcessGroup, kind: str, name: str, reason: str
) -> None:
    found = two_processes.same(sharded_jobs.in_blocks, kind)
    whole = sharded_jobs.in_blocks(kind, distributed=False)
    torch.testing.assert_close(found["kernel"], whole["kernel"], rtol=1e-12, atol=1e-12)
    assert found["coverage"][name].startswith(f"{reason}the whole network gathered in each process")
    assert found["most"] == found["everything"]


def test_an_error_in_one_process(two_processes: ProcessGroup) -> None:
    errors = two_processes.errors(sharded_jobs.failing, "forward")
    assert [str(each) for each in errors] == ["a forward of three samples"] * 2
    found = two_processes.same(
        sharded_jobs.failing, "backward"
    )  # left to the exact engine, by all from the same state
    alone = sharded_jobs.failing("", distributed=False)
    torch.testing.assert_close(found["kernel"], alone["kernel"], rtol=1e-12, atol=1e-12)
    assert all("a backward of three samples" in how for how in found["coverage"].values())


def test_a_measurement(two_processes: ProcessGroup, tmp_path: Path) -> None:
    found = two_processes.same(sharded_jobs.sharded_measurement, True, tmp_path / "shared")
    alone = sharded_jobs.sharded_measurement(False, tmp_path / "alone")
    for name, values in alone["summaries"].items():
        torch.testing.assert_close(found["summaries"][name], values, rtol=1e-8, atol=1e-12)
    assert found["networks"] == alone["networks"]  # weights and zero start, read one after another
    assert found["networks"]["zero"]["zero_start"] == ["out.weight"]
    assert found["same again"]
    assert found["within"]
    assert found["parts"] == alone["parts"] > 0


def test_controls(two_processes: ProcessGroup) -> None:
    (names, woken, weights), _ = two_processes.run(sharded_jobs.controls, True)
    alone = sharded_jobs.controls(False)
    assert (names, woken) == alone[:2] == (["untrained", "untrained 2"], ("out.weight",))
    assert all(torch.equal(found, wanted) for found, wanted in zip(weights, alone[2], strict=True))
