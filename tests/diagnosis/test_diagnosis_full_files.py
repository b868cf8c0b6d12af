"""The full kernel within a diagnosis: measured of all networks, kept with the rest, refused where it is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diagnosis_cases import BUCKETS, POINTS, mlp, small
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from ntkdiag.diagnosis import Diagnosis, FullKernel, FullSettings
from ntkdiag.diagnosis.full_kernel import measure_full
from ntkdiag.diagnosis.full_kernel_files import FULL_TABLES
from ntkdiag.errors import InputError
from ntkdiag.process.paired_draws import PairedDraws

SETTINGS = FullSettings(top_k=3, trace_vectors=3, quadrature_vectors=2, quadrature_steps=4)
FILES = [*(f"full_{name}.csv" for name in FULL_TABLES), "eigenfunctions.safetensors"]


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return small(full=SETTINGS)


@pytest.fixture
def folder(diagnosis: Diagnosis, tmp_path: Path) -> Path:
    diagnosis.save(tmp_path / "run")
    return tmp_path / "run"


def assert_same(found: FullKernel | None, expected: FullKernel | None) -> None:
    assert found is not None and expected is not None
    for name in FULL_TABLES:
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert list(ours.columns) == list(theirs.columns)
        assert_frame_equal(ours, theirs, check_exact=True, check_dtype=len(theirs) > 0)
    assert torch.equal(found.eigenfunctions, expected.eigenfunctions)


def test_the_trace_kernel_alone_is_the_default() -> None:
    found = small()
    assert found.full is None and "full" not in found.meta["config"]
    assert "full_seconds" not in found.meta


def test_it_is_that_of_the_same_draws_and_leaves_the_rest_as_it_was() -> None:
    diagnosis, bare = small(seed=4, full=SETTINGS), small(seed=4)
    draws = PairedDraws.draw(POINTS.train, 8, 4)
    for found, network in ((diagnosis, mlp()), (diagnosis.refs["untrained"], mlp(seed=1))):
        assert_same(found.full, measure_full(network, POINTS.train, draws, BUCKETS, SETTINGS, seed=4))
    assert_frame_equal(diagnosis.summary, bare.summary)
    assert torch.equal(diagnosis.grams["trace"], bare.grams["trace"])


def test_its_trace_is_that_of_the_trace_kernel() -> None:
    """Σ of eigenvalues of Θ/(N·D) = tr K/N; both exact, with enough probes and vectors."""
    found = small(probes=2, full=FullSettings(top_k=16, trace_vectors=6, quadrature_vectors=0))
    assert found.full is not None and found.full.density.empty
    trace = found.summary["trace"].to_numpy()
    assert found.full.summary["trace"].to_numpy() == pytest.approx(trace, rel=1e-4)
    assert found.full.spectra.groupby("bucket")["eigenvalue"].sum().to_numpy() == pytest.approx(
        trace, rel=1e-3
    )


def test_settings_are_recorded(diagnosis: Diagnosis) -> None:
    for one in (diagnosis, diagnosis.refs["untrained"]):
        assert one.meta["config"]["full"] == {
            "top_k": 3,
            "tolerance": SETTINGS.tolerance,
            "trace_vectors": 3,
            "quadrature_vectors": 2,
            "quadrature_steps": 4,
            "contraction_steps": 40,
            "chunk": None,
        }
        assert one.meta["config"]["kernel"] == "trace" and one.meta["full_seconds"] >= 0


def test_progress_names_the_network() -> None:
    reported: list[tuple[str, int, int]] = []
    small(full=SETTINGS, progress=lambda *step: reported.append(step))
    names = [what for what, _, _ in reported]
    for network in ("trained", "untrained"):
        assert f"measuring · full kernel of the {network} network, noise level 3 of 3" in names


def test_the_network_is_left_in_its_mode() -> None:
    from ntkdiag.diagnosis import measure

    denoiser = mlp().train()
    measure(denoiser, POINTS, BUCKETS, samples=4, probes=1, full=SETTINGS)
    assert denoiser.training and all(p.grad is None for p in denoiser.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"full": FullSettings(top_k=17)}, "^top_k: expected at most the 16 rows of the full kernel; got 17"),
        ({"full": FullSettings(top_k=0)}, "^top_k: expected an integer of at least 1"),
        ({"full": FullSettings(trace_vectors=2)}, "^trace_vectors: expected an integer of at least 3"),
        (
            {"full": FullSettings(quadrature_vectors=-1)},
            "^quadrature_vectors: expected an integer of at least 0",
        ),
        ({"full": FullSettings(quadrature_steps=0)}, "^quadrature_steps: expected an integer of at least 1"),
        ({"full": SETTINGS, "params": "out.*"}, "^params: expected none beside the full kernel"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    def never(*args: Any, **settings: Any) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(sys.modules["ntkdiag.diagnosis.measure"], "measure_kernels", never)
    with pytest.raises(InputError, match=words):
        small(**change)


# --- on disk


def test_what_is_loaded_is_what_was_saved(diagnosis: Diagnosis, folder: Path) -> None:
    found = Diagnosis.load(folder)
    assert_same(found.full, diagnosis.full)
    assert_same(found.refs["untrained"].full, diagnosis.refs["untrained"].full)
    assert found.full is not None and found.full.summary["converged"].dtype == bool
    assert found.meta == diagnosis.meta
    assert {path.name for path in folder.iterdir()} >= set(FILES)


def test_without_density_it_is_read_back_without(tmp_path: Path) -> None:
    diagnosis = small(full=FullSettings(top_k=2, quadrature_vectors=0))
    diagnosis.save(tmp_path / "run")
    assert_same(Diagnosis.load(tmp_path / "run").full, diagnosis.full)


def test_a_folder_without_it_still_loads(tmp_path: Path) -> None:
    small().save(tmp_path / "run")
    assert not [name for name in FILES if (tmp_path / "run" / name).exists()]
    assert Diagnosis.load(tmp_path / "run").full is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("inner", ["", "refs/untrained"])
def test_a_missing_file_is_named(folder: Path, name: str, inner: str) -> None:
    (folder / inner / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        Diagnosis.load(folder)
    assert inner in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\xff\xfe\x00" * 50],
    ids=["empty", "half", "noise"],
)
def test_a_damaged_file_is_named(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        Diagnosis.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("summary", "trace_low"),
        ("summary", "top_eigenvalue"),
        ("spectra", "residual_alignment"),
        ("density", "low"),
        ("contraction", "high"),
    ],
)
def test_a_missing_column_or_text_in_it_is_named(folder: Path, table: str, column: str) -> None:
    path = folder / f"full_{table}.csv"
    frame = pd.read_csv(path)
    frame.drop(columns=column).to_csv(path, index=False)
    with pytest.raises(InputError, match=rf"full_{table}\.csv: expected columns .*; got none named {column}"):
        Diagnosis.load(folder)
    frame.astype({column: object}).assign(**{column: "<script>"}).to_csv(path, index=False)
    with pytest.raises(InputError, match=rf"expected numbers in column {column}; got '<script>'"):
        Diagnosis.load(folder)


def test_tables_that_do_not_fit_are_named(folder: Path) -> None:
    whole = {name: pd.read_csv(folder / f"full_{name}.csv") for name in FULL_TABLES}
    for name, change, words in (
        ("summary", whole["summary"].iloc[1:], "expected 3 rows; got 2"),
        ("spectra", whole["spectra"].iloc[:-1], "expected 9 rows; got 8"),
        ("contraction", whole["contraction"].iloc[:-1], "equally many rows of each bucket"),
        ("density", whole["density"].assign(bucket=7), "expected buckets 0 to 2; got 7"),
        (
            "density",
            whole["density"].assign(log_snr=1.0),
            r"expected the log-SNRs of summary\.csv; got \[1.0\]",
        ),
    ):
        change.to_csv(folder / f"full_{name}.csv", index=False)
        with pytest.raises(InputError, match=rf"full_{name}\.csv: .*{words}"):
            Diagnosis.load(folder)
        whole[name].to_csv(folder / f"full_{name}.csv", index=False)


def test_eigenfunctions_of_another_shape_are_named(folder: Path) -> None:
    path = folder / "eigenfunctions.safetensors"
    functions = load_file(path)["eigenfunctions"]
    assert functions.shape == (3, 3, 8, 2)
    for wrong in (functions[:2], functions[:, :, 1:], functions[0]):
        save_file({"eigenfunctions": wrong.contiguous()}, path)
        with pytest.raises(InputError, match=r"expected shape \[3, k, 8, \.\.\.\]"):
            Diagnosis.load(folder)
    save_file({"functions": functions}, path)
    with pytest.raises(InputError, match="expected a tensor named eigenfunctions; got functions"):
        Diagnosis.load(folder)


def test_text_where_numbers_may_be_is_named_too(folder: Path) -> None:
    """A column that is there only with quadrature; the method is text."""
    path = folder / "full_summary.csv"
    frame = pd.read_csv(path)
    assert Diagnosis.load(folder).full is not None and isinstance(frame["method"][0], str)
    frame.astype({"effective_rank": object}).assign(effective_rank="3.5nan").to_csv(path, index=False)
    with pytest.raises(InputError, match=r"full_summary\.csv: expected numbers in column effective_rank"):
        Diagnosis.load(folder)
