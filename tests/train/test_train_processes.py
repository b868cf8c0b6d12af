"""Training shared by two processes of torch.distributed (gloo): what one process does, and errors that are those of all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import train_jobs
from process_group import ProcessGroup
from train_jobs import ODD, QUICK, trained

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.train import TrainConfig
from ntkdiag.train.checkpoints.checkpoint import read_manifest


def close(found: Any, expected: Any, tolerance: float) -> None:
    """Compare runs: all numbers, to a relative tolerance."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            close(found[name], expected[name], tolerance)
    elif isinstance(expected, list) and any(isinstance(one, dict) for one in expected):
        for one, other in zip(found, expected, strict=True):
            close(one, other, tolerance)
    elif isinstance(expected, torch.Tensor | list | float):
        options = {"rtol": tolerance, "atol": tolerance, "equal_nan": True}
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), **options)
    else:
        assert found == expected


def one_error(errors: list[Exception]) -> Exception:
    """The error that all processes raise."""
    assert len({(type(error), str(error)) for error in errors}) == 1, errors
    return errors[0]


@pytest.mark.parametrize(
    ("kind", "settings", "weights"),
    [
        ("float32", {}, "doubling"),
        ("float32", {"accumulate": 3}, "learned"),
        ("float64", {"align": 0.5, "align_module": "layers.0", "accumulate": 2}, ""),
        ("float64", {"stratified": True, "sampling": "table"}, "doubling"),
        ("float32", {}, "measured"),
    ],
)
def test_two_processes_train_as_one_does(
    two_processes: ProcessGroup, kind: str, settings: dict[str, Any], weights: str
) -> None:
    """Shares of 7 and 8 samples; in float64 as far as rounding goes, in float32 to the five digits that are promised."""
    config = dataclasses.replace(ODD, **settings)
    together = two_processes.same(trained, kind, config, weights=weights, distributed=True)
    alone = trained(kind, dataclasses.replace(config, accumulate=1), weights=weights)
    close(together, alone, 1e-5 if kind == "float32" else 1e-10)


def test_parameters_that_one_process_uses_and_the_other_does_not(two_processes: ProcessGroup) -> None:
    config = dataclasses.replace(ODD, batch=6, weight_decay=0.1)
    together = two_processes.same(trained, "some", config, distributed=True)
    close(together, trained("some", config), 1e-5)
    assert torch.equal(together["network"]["never"], torch.ones(2))  # no gradient anywhere, so no decay


def test_a_run_resumes_to_the_same_bytes_and_by_one_process_to_the_same_losses(
    two_processes: ProcessGroup, tmp_path: Path
) -> None:
    half = dataclasses.replace(QUICK, steps=5)
    shared: dict[str, Any] = {"weights": "learned", "distributed": True}
    whole = two_processes.same(trained, "float32", QUICK, **shared)
    for folder in ("a", "b"):
        two_processes.same(trained, "float32", half, tmp_path / folder, **shared)
    close(two_processes.same(trained, "float32", QUICK, tmp_path / "a", resume=True, **shared), whole, 0.0)
    alone = trained("float32", QUICK, tmp_path / "b", weights="learned", resume=True)
    close(alone, whole, 1e-5)


def test_the_first_process_writes_and_reports(two_processes: ProcessGroup, tmp_path: Path) -> None:
    assert two_processes.run(train_jobs.reported, tmp_path / "together") == [3, 0]
    trained("float32", QUICK, tmp_path / "alone")
    together, alone = (
        sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*"))
        for name in ("together", "alone")
    )
    assert [name for name in together if "events" not in name] == [
        name for name in alone if "events" not in name
    ]
    assert read_manifest(tmp_path / "together").step == 12


def test_buffers_are_those_of_the_first_process(two_processes: ProcessGroup) -> None:
    found = two_processes.same(trained, "norm", QUICK, distributed=True)
    assert found["network"]["norm.num_batches_tracked"] == 12
    assert torch.equal(found["average"]["norm.running_mean"], found["network"]["norm.running_mean"])
    assert not torch.equal(found["network"]["norm.running_mean"], torch.zeros(2))


def test_what_a_network_draws_differs_between_the_shares(two_processes: ProcessGroup) -> None:
    first, second = two_processes.run(train_jobs.masks)
    assert len(first) == len(second) == 3
    assert len({*first, *second}) == 6


def test_a_loss_that_is_not_finite_ends_both_in_one_line(two_processes: ProcessGroup, tmp_path: Path) -> None:
    error = one_error(two_processes.errors(train_jobs.sour, tmp_path / "run"))
    assert isinstance(error, MeasurementError)
    assert "at step 8. It is that of 16 of 16 samples" in str(error)
    assert [path.name for path in (tmp_path / "run").glob("failed*")] == ["failed-00000008.safetensors"]
    assert read_manifest(tmp_path / "run").step == 6


def test_ctrl_c_in_one_process_stops_both_at_one_step(two_processes: ProcessGroup, tmp_path: Path) -> None:
    assert two_processes.same(train_jobs.interrupted, tmp_path / "run") == "interrupted"
    assert read_manifest(tmp_path / "run").step == 8
    shared: dict[str, Any] = {"weights": "doubling", "distributed": True}
    whole = two_processes.same(trained, "float32", QUICK, **shared)
    close(two_processes.same(trained, "float32", QUICK, tmp_path / "run", resume=True, **shared), whole, 0.0)


def test_a_full_disk_of_the_first_ends_both(two_processes: ProcessGroup, tmp_path: Path) -> None:
    error = one_error(two_processes.errors(train_jobs.full_disk, tmp_path / "run"))
    assert "expected room on the disk; got none" in str(error)
    assert read_manifest(tmp_path / "run").step == 6


@pytest.mark.parametrize(
    ("job", "arguments", "kind", "said"),
    [
        (trained, ("failing", QUICK), ValueError, "a strange sample"),
        (trained, ("float32", dataclasses.replace(QUICK, batch=1)), InputError, "each of 2 processes; got 1"),
        (train_jobs.seeded_apart, (), InputError, "the same weights in every process"),
        (train_jobs.in_torchs_own, (), InputError, "expected the bare network"),
    ],
)
def test_what_ends_both(
    two_processes: ProcessGroup, job: Any, arguments: tuple[Any, ...], kind: type[Exception], said: str
) -> None:
    options = {"distributed": True} if job is trained else {}
    error = one_error(two_processes.errors(job, *arguments, **options))
    assert isinstance(error, kind)
    assert said in str(error)


def test_parts_of_a_batch_add_up_to_it() -> None:
    """Parts of three samples, of three and four, and of one."""
    whole = trained("float64", ODD)
    for parts in (5, 4, 15):
        close(trained("float64", dataclasses.replace(ODD, accumulate=parts)), whole, 1e-10)


def test_bfloat16_is_for_products_alone(tmp_path: Path) -> None:
    config: TrainConfig = dataclasses.replace(QUICK, mixed_precision="bf16", log_every=1)
    found, exact = trained("float32", config), trained("float32", dataclasses.replace(QUICK, log_every=1))
    assert {value.dtype for value in found["network"].values()} == {torch.float32}
    close(found["history"]["loss"], exact["history"]["loss"], 0.02)
    assert not torch.equal(found["history"]["loss"], exact["history"]["loss"])
    trained("float32", dataclasses.replace(config, steps=7), tmp_path / "run")  # rows of one step
    close(trained("float32", config, tmp_path / "run", resume=True), found, 0.0)
