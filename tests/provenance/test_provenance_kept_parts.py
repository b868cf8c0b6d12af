"""Kept parts: taken again by the same key alone, read as data, and gone with their folder."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from ntkdiag.errors import InputError
from ntkdiag.provenance import KeptParts, KeyedParts

PART = {
    "matrix": torch.tensor([[0.1, torch.nan], [-0.0, torch.inf]], dtype=torch.float64),
    "text": "a",
    "none": None,
}


def unmade() -> dict[str, Any]:
    raise AssertionError("made again")


def test_a_part_comes_back_bit_by_bit_for_its_key_and_name_alone(tmp_path: Path) -> None:
    found: list[str] = []
    KeptParts(tmp_path / "kept").of("key").take("name", lambda: PART)
    kept = KeptParts(tmp_path / "kept", lambda: found.append("found"))
    for _ in range(2):
        back = kept.of("key").take("name", unmade)
        assert back["matrix"].numpy().tobytes() == PART["matrix"].numpy().tobytes()  # type: ignore[attr-defined]
        assert (back["text"], back["none"]) == ("a", None)
    assert found == ["found"] and kept.finished == 2
    for key, name in (("key", "other"), ("other", "name")):
        assert kept.of(key).take(name, lambda: {"new": True}) == {"new": True}
    assert len(kept) == 3
    kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_does_not_fit_any_more_takes_all_of_its_computation_along(tmp_path: Path) -> None:
    kept = KeptParts(tmp_path / "kept")
    for key in ("a", "b"):
        for name in ("first", "second"):
            kept.of(key).take(name, lambda: {"old": True})
    assert kept.of("a").take("first", lambda: {"old": False}, lambda part: False) == {"old": False}
    assert kept.of("a").take("second", lambda: {"old": False}) == {"old": False}
    assert kept.of("b").take("second", unmade, lambda part: part["old"]) == {"old": True}


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("hostile", [pickle.dumps(Runs()), b"", b"PK\x03\x04", pickle.dumps({"key": "key"})])
def test_nothing_in_a_part_is_run(hostile: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = KeptParts("kept")
    kept.of("key").take("name", lambda: PART)
    (file,) = Path("kept").iterdir()
    file.write_bytes(hashlib.sha256(hostile).digest() + hostile)
    assert kept.of("key").take("name", lambda: {"new": True}) == {"new": True}
    assert not Path("ran").exists()


def test_without_a_folder_every_part_is_made(tmp_path: Path) -> None:
    made = iter([{"number": 1}, {"number": 2}])
    assert [KeyedParts().take("name", lambda: next(made))["number"] for _ in range(2)] == [1, 2]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        KeptParts(tmp_path / "file").of("key").take("name", lambda: PART)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_part_counts_when_a_signal_comes_just_after_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        raise KeyboardInterrupt

    kept = KeptParts(tmp_path / "kept")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ntkdiag.provenance.kept_parts.write_bytes", write)
        kept.of("key").take("name", lambda: PART)
    assert kept.finished == len(kept) == 1
    assert kept.of("key").take("name", unmade)["text"] == "a"
