"""A diagnosis on disk: what is read is what was written, bit by bit, and nothing else is taken for one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from diagnosis_cases import POINTS, linear, mlp, small, vectors
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from ntkdiag import models
from ntkdiag.data import digits
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import Diagnosis, measure
from ntkdiag.diagnosis.bayes import network_errors
from ntkdiag.diagnosis.result import TABLES
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.buckets import Buckets


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return small()


@pytest.fixture
def folder(diagnosis: Diagnosis, tmp_path: Path) -> Path:
    diagnosis.save(tmp_path / "run")
    return tmp_path / "run"


def assert_same(found: Diagnosis, expected: Diagnosis) -> None:
    for name in TABLES:
        assert_frame_equal(getattr(found, name), getattr(expected, name), check_exact=True)
    assert found.grams.keys() == expected.grams.keys()
    for name, gram in expected.grams.items():
        assert found.grams[name].dtype == torch.float64 and torch.equal(found.grams[name], gram)
    assert found.meta == expected.meta
    assert found.refs.keys() == expected.refs.keys()
    for name, reference in expected.refs.items():
        assert_same(found.refs[name], reference)


def test_what_is_loaded_is_what_was_saved(diagnosis: Diagnosis, folder: Path) -> None:
    assert "untrained" in diagnosis.refs and "per_probe" in diagnosis.grams
    assert_same(Diagnosis.load(folder), diagnosis)


@pytest.mark.parametrize("samples", [1, 2])
def test_missing_numbers_survive(tmp_path: Path, samples: int) -> None:
    """Without an oracle and with too few samples for intervals, whole columns are NaN."""
    diagnosis = measure(linear(), vectors(), Buckets.uniform(-2, 2, count=1), samples=samples, probes=2)
    assert diagnosis.summary["excess"].isna().all() and diagnosis.summary["trace_low"].isna().all()
    diagnosis.save(tmp_path / "run")
    assert_same(Diagnosis.load(tmp_path / "run"), diagnosis)


def test_saving_twice_gives_the_same_bytes(diagnosis: Diagnosis, folder: Path, tmp_path: Path) -> None:
    diagnosis.save(tmp_path / "again")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == 12
    for name in files:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_saved_run_is_replaced_only_with_force(diagnosis: Diagnosis, folder: Path) -> None:
    with pytest.raises(InputError, match="holds another run"):
        diagnosis.save(folder)
    diagnosis.save(folder, force=True)
    assert_same(Diagnosis.load(folder), diagnosis)


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".", "..", "/tmp/x", "\n"])
def test_a_references_name_cannot_leave_the_folder(diagnosis: Diagnosis, tmp_path: Path, name: str) -> None:
    stray = Diagnosis(**{**vars(diagnosis), "refs": {name: diagnosis.refs["untrained"]}})
    with pytest.raises(InputError, match="name of a reference: expected a name of letters"):
        stray.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_diagnosis_that_cannot_be_written_leaves_nothing(diagnosis: Diagnosis, tmp_path: Path) -> None:
    broken = Diagnosis(**{**vars(diagnosis), "meta": {**diagnosis.meta, "kappa": float("nan")}})
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# --- folders that are none


@pytest.mark.parametrize(
    "name", [*(f"{table}.csv" for table in TABLES), "grams.safetensors", "diagnosis.json"]
)
@pytest.mark.parametrize("inner", ["", "refs/untrained"])
def test_a_missing_file_is_named(folder: Path, name: str, inner: str) -> None:
    (folder / inner / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        Diagnosis.load(folder)
    assert inner in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [*(f"{table}.csv" for table in TABLES), "grams.safetensors", "diagnosis.json"]
)
@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\xff\xfe\x00" * 50],
    ids=["empty", "half", "noise"],
)
def test_a_damaged_file_is_named(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = folder / name
    if name == "rarefaction.csv" and damage(b"12") == b"1":
        return  # it may have any number of rows
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        Diagnosis.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_column_is_named(folder: Path, table: str) -> None:
    path = folder / f"{table}.csv"
    pd.read_csv(path).drop(columns="log_snr" if table != "coupling" else "kernel").to_csv(path, index=False)
    with pytest.raises(
        InputError, match=rf"{table}\.csv: expected columns .*; got none named (log_snr|kernel)"
    ):
        Diagnosis.load(folder)


def test_text_where_numbers_belong_is_named(folder: Path) -> None:
    path = folder / "summary.csv"
    frame = pd.read_csv(path).astype({"trace": object})
    frame.loc[0, "trace"] = "<script>"
    frame.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"expected numbers in column trace; got '<script>'"):
        Diagnosis.load(folder)


@pytest.mark.parametrize("name", ["trace", "residual"])
def test_missing_and_misshapen_kernels_are_named(folder: Path, name: str) -> None:
    path = folder / "grams.safetensors"
    grams = load_file(path)
    save_file({**grams, name: grams[name][..., 1:].contiguous()}, path)
    with pytest.raises(InputError, match=r"^kernel (trace|residual) in .*: expected shape \("):
        Diagnosis.load(folder)
    del grams[name]
    save_file(grams, path)
    with pytest.raises(InputError, match=f"expected a kernel named {name}; got .*per_probe"):
        Diagnosis.load(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "a diagnosis of format 1"),
        ("[]", "a diagnosis of format 1"),
        ('{"format": 2}', "a diagnosis of format 1"),
        ('{"format": 1}', r"expected config\.target"),
        ('{"format": 1, "config": []}', r"expected config\.target; got keys config"),
        ("{", "expected JSON"),
    ],
)
def test_another_json_is_no_diagnosis(folder: Path, text: str, words: str) -> None:
    (folder / "diagnosis.json").write_text(text)
    with pytest.raises(InputError, match=words):
        Diagnosis.load(folder)


def test_another_place_is_no_diagnosis(folder: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path, folder / "summary.csv"):
        with pytest.raises(InputError, match=r"expected a folder with diagnosis\.json; got none there"):
            Diagnosis.load(path)


def test_a_stray_file_among_references_is_no_reference(folder: Path) -> None:
    (folder / "refs" / ".DS_Store").write_text("")
    assert list(Diagnosis.load(folder).refs) == ["untrained"]


def test_loading_runs_no_code(folder: Path, tmp_path: Path) -> None:
    """A pickle in a kernel's place is refused and not opened."""
    import os
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "exploded"),)

    (folder / "grams.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="expected a safetensors file"):
        Diagnosis.load(folder)
    assert not (tmp_path / "exploded").exists()


def test_provenance_is_recorded(diagnosis: Diagnosis) -> None:
    meta = json.loads(json.dumps(diagnosis.meta))
    assert meta["config"] == {
        "buckets": {"edges": [-6.0, -2.0, 2.0, 6.0], "centers": [-4.0, 0.0, 4.0]},
        "samples": 8,
        "probes": 1,
        "kernel": "trace",
        "seed": 0,
        "params": None,
        "target": "v",
        "schedule": {"name": "cosine"},
    }
    assert meta["data"] == {
        "name": "mixture", "digest": POINTS.digest, "shape": [2], "description": "", "from_network": False
    }  # fmt: skip
    assert meta["bayes_source"] == "mixture: exact posterior of the mixture"
    assert meta["environment"]["torch"] and meta["seconds"] >= 0
    network = mlp().network
    assert meta["network"]["parameters"] == sum(p.numel() for p in network.parameters())
    assert (meta["network"]["name"], meta["network"]["class"], meta["network"]["outputs"]) == (
        "trained",
        "MLP",
        2,
    )
    assert set(meta["coverage"]) == {name for name, _ in network.named_parameters()}
    assert diagnosis.refs["untrained"].meta["network"]["name"] == "untrained"
    assert diagnosis.refs["untrained"].meta["network"]["digest"] != meta["network"]["digest"]


def test_without_an_oracle_the_bound_is_called_one() -> None:
    network = models.build("mlp", (1, 8, 8), width=4, depth=1, frequencies=1)
    denoiser = Denoiser(network, schedules.cosine(), "epsilon", call="log_snr")
    buckets = Buckets.uniform(-2, 2, count=2)
    found = measure(denoiser, digits(), buckets, samples=4, probes=2)
    assert found.meta["bayes_source"].startswith("95% bounds from estimators")
    assert found.meta["bayes_source"].endswith("it may have seen the held-out samples")
    assert set(found.meta["bayes_bounds"]) <= {"linear denoiser", "posterior mean over the other samples"}
    assert found.summary["excess"].isna().all() and found.summary["bayes_share"].between(0, 1).all()
    assert (found.summary["bayes_share"] <= found.summary["bayes_share_estimate"]).all()


def test_a_network_that_never_saw_the_held_out_samples_bounds_the_floor_by_its_own_loss() -> None:
    """A network that answers ε = x is the best there is where the noise is strongest."""

    class Echo(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return self.scale * x

    denoiser = Denoiser(Echo(), schedules.cosine(), "epsilon")
    buckets = Buckets.from_edges([-24, -22, -2, 2])
    plain, more = (
        measure(denoiser, digits(), buckets, samples=4, probes=2, held_out_unseen=unseen)
        for unseen in (False, True)
    )
    assert (
        more.meta["bayes_source"]
        == "95% bounds from estimators evaluated on samples that they were not fitted on"
    )
    levels = torch.tensor(buckets.centers, dtype=torch.float64)
    own = network_errors(denoiser, digits().held_out, levels, 0)
    gain = torch.exp(levels)  # k² of ε
    expected = denoiser.training_pair(*(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)), float(levels[2]))[0]
    assert torch.isfinite(own.errors).all() and own.errors.shape == (3, len(digits().held_out))
    error = float((own.errors[2] * gain[2]).mean())
    sigma, alpha = float(expected.flatten()[0]), math.sqrt(1 - float(expected.flatten()[0]) ** 2)
    second = float(digits().held_out.double().square().mean())
    assert error == pytest.approx(alpha**2 * second + (sigma - 1) ** 2, rel=0.05)
    assert len(plain.meta["bayes_bounds"]) == len(more.meta["bayes_bounds"]) == 3
