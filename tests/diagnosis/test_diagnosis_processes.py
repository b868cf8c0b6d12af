"""A diagnosis that two processes measure together is that of one, and the same in both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diagnosis_cases import BUCKETS, POINTS, mlp, small
from process_group import ProcessGroup

from ntkdiag.claims import verify
from ntkdiag.diagnosis import FullSettings, measure
from ntkdiag.errors import InputError
from ntkdiag.provenance import KeptParts

TABLES = ("summary", "spectra", "coupling", "rarefaction")


def measured(**change: Any) -> dict[str, Any]:
    """A diagnosis, as tables and tensors."""
    settings: dict[str, Any] = {"samples": 8, "refs": {"untrained": mlp(seed=1).double()}} | change
    found = measure(mlp().double(), POINTS, BUCKETS, **settings)
    tables = {name: getattr(found, name) for name in TABLES}
    meta = {name: found.meta[name] for name in ("engine", "coverage", "kappa")}
    return {"tables": tables, "refs": list(found.refs), "grams": found.grams, "meta": meta}


def kept_by_first(folder: Path) -> tuple[int, list[str], Any]:
    """Measure with kept parts; how many this process made or took, their files, and the summary."""
    kept = KeptParts(folder / str(torch.distributed.get_rank()))
    found = small(resume=kept, distributed=True)
    return kept.finished, sorted(path.name for path in kept.folder.glob("*")), found.summary


def with_kernels_forbidden(folder: Path) -> pd.DataFrame:
    """The same once more, where any kernel would be an error."""
    kept = KeptParts(folder / str(torch.distributed.get_rank()))
    place = sys.modules["ntkdiag.diagnosis.bucket_kernels"]
    usual, place.gram = place.gram, None  # type: ignore[attr-defined]
    try:
        return small(resume=kept, distributed=True).summary
    finally:
        place.gram = usual  # type: ignore[attr-defined]


def full_kernel(distributed: bool) -> tuple[int, Any]:
    """How many noise levels of the full kernel this process measured, and what was found."""
    place, count = sys.modules["ntkdiag.diagnosis.full_kernel"], 0
    usual = place.NTKOperator

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return usual(*args, **options)

    place.NTKOperator = counted  # type: ignore[attr-defined]
    settings = FullSettings(top_k=1, trace_vectors=3, quadrature_vectors=0, contraction_steps=2)
    try:
        full = small(samples=4, full=settings, refs=None, distributed=distributed).full
    finally:
        place.NTKOperator = usual  # type: ignore[attr-defined]
    return count, full


def answered(distributed: bool) -> str:
    """What `verify` says."""
    return verify(
        mlp(), POINTS, BUCKETS, samples=16, probes=3, fresh=fresh, controls=1, distributed=distributed
    ).text


def fresh(seed: int) -> Any:
    return mlp(seed=seed)


@pytest.mark.parametrize(
    "options", [{"probes": 2}, {"engine": "sketch", "sketch": 3, "probes": 2, "samples": 7}]
)
def test_two_processes_measure_what_one_does(two_processes: ProcessGroup, options: dict[str, Any]) -> None:
    first, second = two_processes.run(measured, distributed=True, **options)
    alone = measured(**options)
    assert first["refs"] == alone["refs"]
    assert first["meta"]["coverage"] == alone["meta"]["coverage"]
    for name in TABLES:
        pd.testing.assert_frame_equal(first["tables"][name], second["tables"][name], check_exact=True)
        pd.testing.assert_frame_equal(first["tables"][name], alone["tables"][name], rtol=1e-6)
    for name, gram in alone["grams"].items():
        assert torch.equal(first["grams"][name], second["grams"][name])
        assert float((first["grams"][name] - gram).norm()) <= 1e-10 * float(gram.norm())


def test_the_noise_levels_of_the_full_kernel_are_shared_out(two_processes: ProcessGroup) -> None:
    (one, first), (other, second) = two_processes.run(full_kernel, True)
    every, alone = full_kernel(False)
    assert (one, other, every) == (2, 1, 3)
    for found in (first, second):
        pd.testing.assert_frame_equal(found.summary, alone.summary, check_exact=True)
        pd.testing.assert_frame_equal(found.spectra, alone.spectra, check_exact=True)
        assert torch.equal(found.eigenfunctions, alone.eigenfunctions)


def test_parts_are_kept_by_the_first_process_and_used_by_all(
    two_processes: ProcessGroup, tmp_path: Path
) -> None:
    (made, files, summary), (none, nothing, _) = two_processes.run(kept_by_first, tmp_path)
    assert made == len(files) > 3
    assert (none, nothing) == (0, [])
    for again in two_processes.run(with_kernels_forbidden, tmp_path):
        pd.testing.assert_frame_equal(again, summary, check_exact=True)


def test_the_answer_is_the_same(two_processes: ProcessGroup) -> None:
    assert two_processes.same(answered, distributed=True) == answered(distributed=False)


def test_without_a_group() -> None:
    with pytest.raises(InputError, match="torchrun"):
        small(distributed=True)
