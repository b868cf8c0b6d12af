"""Files of every kind, damaged at random: finite samples or weights come out, or one readable line."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from data_cases import pixels, write_idx, write_picture
from torch import nn

from analysis.fuzz.damage import damaged, refusal, unreadable_path
from ntkdiag import data
from ntkdiag.errors import InputError
from ntkdiag.state_dicts import load_weights

ARRAY = pixels(6, 4, 4)
CASES = 12


def bytes_of(write: Callable[[Any], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def picture(name: str) -> Callable[[Path], None]:
    return lambda folder: write_picture(folder / name, pixels(9, 8))


def file(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


TENSORS = {"x": torch.from_numpy(ARRAY), "y": torch.arange(6)}
KINDS: dict[str, Callable[[Path], None]] = {
    "a.npz": file("a.npz", bytes_of(lambda stream: np.savez(stream, x=ARRAY, y=np.arange(6)))),
    "b.npz": file("b.npz", bytes_of(lambda stream: np.savez_compressed(stream, x=ARRAY))),
    "a.pt": file("a.pt", bytes_of(lambda stream: torch.save(TENSORS, stream))),
    "old.pt": file(
        "old.pt", bytes_of(lambda s: torch.save(TENSORS, s, _use_new_zipfile_serialization=False))
    ),
    "a.safetensors": file("a.safetensors", safetensors.torch.save(TENSORS)),
    "a.idx": lambda folder: write_idx(folder / "a.idx", ARRAY),
    "a.idx.gz": lambda folder: write_idx(folder / "a.idx.gz", ARRAY),
    **{name: picture(name) for name in ("a.png", "a.jpg", "a.gif", "a.tif", "a.bmp", "a.webp")},
}
PICTURES = {".png", ".jpg", ".gif", ".tif", ".bmp", ".webp"}


@pytest.mark.parametrize("number", range(CASES))
@pytest.mark.parametrize("name", KINDS)
def test_damaged_data_is_read_or_refused(tmp_path: Path, name: str, number: int) -> None:
    rng = np.random.default_rng([number, *name.encode()])
    path = tmp_path / name
    if number == 0 and path.suffix not in PICTURES:
        path = unreadable_path(rng, path)
    else:
        KINDS[name](tmp_path)
        content = path.read_bytes()
        for _ in range(number % 4):
            content = damaged(rng, content)
        path.write_bytes(content)
    try:
        found = data.load(tmp_path if path.suffix in PICTURES else path, held_out=0)
        samples = found.train[:]
    except InputError as error:
        refusal(str(error))
        assert number % 4 or number == 0, "a whole file was refused"
    else:
        assert samples.isfinite().all()


@pytest.mark.parametrize("number", range(CASES))
@pytest.mark.parametrize("new", [True, False])
def test_damaged_checkpoints_are_read_or_refused(tmp_path: Path, new: bool, number: int) -> None:
    rng = np.random.default_rng([number, new])
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    content = bytes_of(
        lambda stream: torch.save(
            {"model": before, "ema": before}, stream, _use_new_zipfile_serialization=new
        )
    )
    for _ in range(1 + number % 3):
        content = damaged(rng, content)
    (tmp_path / "net.pt").write_bytes(content)
    try:
        load_weights(network, tmp_path / "net.pt")
    except InputError as error:
        refusal(str(error))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.isfinite().all() for value in network.state_dict().values())
