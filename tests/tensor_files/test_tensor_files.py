"""Files of tensors, honest and hostile: nothing in them is run, and damage is one line."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from ntkdiag.errors import InputError
from ntkdiag.tensor_files import read_safetensors, read_sharded, read_torch

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("code from a file was run",))


class Settings:
    """A class that no reader knows."""

    def __init__(self) -> None:
        self.rate = 1e-3


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def one_line(caught: pytest.ExceptionInfo[InputError]) -> str:
    text = str(caught.value)
    assert "\n" not in text and "\x1b" not in text
    return text


# torch.save


@pytest.mark.parametrize("new", [True, False])
def test_both_formats_of_torch_are_read(tmp_path: Path, new: bool) -> None:
    torch.save(
        {"model": OrderedDict(TENSORS), "step": 3},
        tmp_path / "net.pt",
        _use_new_zipfile_serialization=new,
    )
    found = read_torch(tmp_path / "net.pt")
    assert found["step"] == 3 and same(found["model"], TENSORS)


def test_a_file_of_torch_is_mapped_and_not_copied(tmp_path: Path) -> None:
    """A file of 64 MiB, of which one number is read, costs no memory."""
    import resource

    torch.save({"big": torch.zeros(2**24)}, tmp_path / "big.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_torch(tmp_path / "big.pt")["big"][5] == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15  # KiB


def test_settings_of_a_training_script_do_no_harm(tmp_path: Path) -> None:
    torch.save({"ema": TENSORS, "args": argparse.Namespace(rate=1e-3)}, tmp_path / "net.pt")
    found = read_torch(tmp_path / "net.pt")
    assert found["args"].rate == 1e-3 and same(found["ema"], TENSORS)


@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_file_of_torch_is_never_run(tmp_path: Path, new: bool) -> None:
    torch.save({"ema": TENSORS, "x": Bomb()}, tmp_path / "net.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(
        InputError, match=r"without running code; got an object of _pytest\.outcomes"
    ) as caught:
        read_torch(tmp_path / "net.pt")
    assert "two lines of Python convert it" in one_line(caught)


def test_a_bare_pickle_is_never_run(tmp_path: Path) -> None:
    for protocol in (2, 4, 5):
        (tmp_path / "net.pkl").write_bytes(pickle.dumps(Bomb(), protocol=protocol))
        with pytest.raises(InputError, match="got a bare pickle"):
            read_torch(tmp_path / "net.pkl")


def convert(caught: pytest.ExceptionInfo[InputError]) -> None:
    """Run the lines of a refusal, as a user who trusts the file would."""
    exec(one_line(caught).partition("convert it: ")[2], {})


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ({"ema": nn.Linear(3, 2), "args": Settings()}, {"ema": {"weight", "bias"}}),
        ({"model": TENSORS, "ema": TENSORS, "config": Settings(), "step": 5}, {"model": None, "ema": None}),
        ({**TENSORS, "config": Settings()}, {"a.weight": None, "a.bias": None}),
        (nn.Linear(3, 2), {"model": {"weight", "bias"}}),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_the_two_lines_of_a_refusal_convert_the_file(
    tmp_path: Path, content: Any, kept: dict[str, Any], bare: bool
) -> None:
    path = tmp_path / "it's mine.pt"
    if bare:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        read_torch(path)
    convert(caught)
    found = read_torch(tmp_path / "it's mine-weights.pt")
    assert found.keys() == kept.keys()
    for name, keys in kept.items():
        assert keys is None or found[name].keys() == keys


def test_a_program_of_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "net.pt")
    with pytest.raises(InputError, match="got a TorchScript program"):
        read_torch(tmp_path / "net.pt")


def patched(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes of the pickle in a file of torch."""
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name, part in parts.items():
            changed = part.replace(old, new) if name.endswith("data.pkl") else part
            assert not name.endswith("data.pkl") or changed != part
            target.writestr(name, changed)


def test_a_tensor_larger_than_its_file_is_damage(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(7, 3)}, tmp_path / "net.pt")
    billion = b"J" + (10**9).to_bytes(4, "little")
    patched(tmp_path / "net.pt", b"K\x07K\x03\x86", billion + b"K\x03\x86")
    with pytest.raises(InputError, match=r"a whole file of torch\.save"):
        read_torch(tmp_path / "net.pt")


def test_damaged_and_missing_files_of_torch_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    for new in (True, False):
        torch.save(TENSORS, path, _use_new_zipfile_serialization=new)
        whole = path.read_bytes()
        for part in (0, 1, 20, len(whole) // 2, len(whole) - 30):
            path.write_bytes(whole[:part])
            with pytest.raises(InputError) as caught:
                read_torch(path)
            assert str(path) in one_line(caught)
    path.write_text("weights\n")
    with pytest.raises(InputError, match="got other bytes"):
        read_torch(path)
    with pytest.raises(InputError, match="no such file"):
        read_torch(tmp_path / "none.pt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors")
    with pytest.raises(InputError, match=r"a whole file of torch\.save"):
        read_torch(path)


# safetensors


def test_a_header_that_announces_a_billion_elements_is_damage(tmp_path: Path) -> None:
    shape = [10**9]
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0]]}}).encode()
    (tmp_path / "net.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)
    with pytest.raises(InputError, match=r"a whole \.safetensors file") as caught:
        read_safetensors(tmp_path / "net.safetensors")
    one_line(caught)
    (tmp_path / "net.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match=r"a whole \.safetensors file"):
        read_safetensors(tmp_path / "net.safetensors")


# shards


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards of different kinds and their index."""
    safetensors.torch.save_file({"a.weight": TENSORS["a.weight"]}, tmp_path / "m-1-of-2.safetensors")
    torch.save({"a.bias": TENSORS["a.bias"]}, tmp_path / "m-2-of-2.bin")
    files = {"a.weight": "m-1-of-2.safetensors", "a.bias": "m-2-of-2.bin"}
    (tmp_path / "m.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return tmp_path / "m.index.json"


def test_shards_are_put_together(sharded: Path) -> None:
    assert same(read_sharded(sharded), TENSORS)


def test_a_shard_may_be_a_link_as_in_a_cache(sharded: Path, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    file = tmp_path / "m-1-of-2.safetensors"
    file.rename(tmp_path / "blobs" / "0123")
    file.symlink_to(tmp_path / "blobs" / "0123")
    assert same(read_sharded(sharded), TENSORS)


@pytest.mark.parametrize(
    "name",
    ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", ".", "a\\b.safetensors", "\0"],
)
def test_a_path_out_of_the_folder_is_refused(sharded: Path, name: str) -> None:
    safetensors.torch.save_file(TENSORS, sharded.parent.parent / "other.safetensors")
    sharded.write_text(json.dumps({"weight_map": {"a.weight": name}}))
    with pytest.raises(InputError, match="names of files in its own folder") as caught:
        read_sharded(sharded)
    one_line(caught)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON: RecursionError"),
        ("[]", "without such a map"),
        ("{}", "without such a map"),
        ('{"weight_map": {}}', "without such a map"),
        ('{"weight_map": {"a": 3}}', "without such a map"),
        ('{"weight_map": {"a": "none.safetensors"}}', "none.safetensors: .* no such file"),
        ('{"weight_map": {"b": "m-1-of-2.safetensors"}}', "got no b in m-1-of-2.safetensors"),
    ],
)
def test_an_index_that_is_wrong_is_one_line(sharded: Path, text: str, words: str) -> None:
    sharded.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_sharded(sharded)
    one_line(caught)
