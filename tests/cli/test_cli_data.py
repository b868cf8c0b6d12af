"""--data as people have them: files and folders, how they are read, and hostile ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import pixels, write_mnist, write_picture

from ntkdiag.diagnosis import Diagnosis

TINY = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1"]
QUICKLY = ["--buckets", "4", "--samples", "8", "--probes", "2", "--controls", "1"]
MEASURE = ["measure", *TINY, *QUICKLY, "--out", "out"]
Refused = Callable[..., str]


def write_classes(folder: Path, size: tuple[int, ...] = (6, 5)) -> None:
    for number in range(20):
        write_picture(folder / "ab"[number % 2] / f"{number}.png", pixels(*size, seed=number))


def test_a_folder_of_pictures_is_measured_as_stated(call: Any, workspace: Path) -> None:
    write_classes(workspace / "pictures")
    result = call(*MEASURE, "--data", "pictures", "--image-size", "4", "--pixel-range", "-2,2", "--json")
    assert result.code == 0
    data = Diagnosis.load("out").meta["data"]
    assert data["name"] == "pictures" and data["shape"] == [1, 4, 4]
    for words in (
        "20 samples",
        "scaled to [-2, 2]",
        "resized to 4 × 4",
        "labels by folder: a, b",
        "4 of them are held out",
    ):
        assert words in data["description"]


@pytest.mark.parametrize("kind", ["npz", "safetensors", "pt", "mnist"])
def test_every_kind_of_file_is_measured(call: Any, workspace: Path, kind: str) -> None:
    array = pixels(20, 4, 4)
    name = f"mine.{kind}"
    if kind == "npz":
        np.savez(name, x=array, other=array[:, :2])
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file({"x": torch.from_numpy(array)}, name)
    elif kind == "pt":
        torch.save({"x": torch.from_numpy(array), "y": torch.arange(20)}, name)
    else:
        write_mnist(workspace / name, ".gz")
    result = call(*MEASURE, "--data", name, *(["--data-key", "x"] if kind == "npz" else []), "--json")
    assert result.code == 0, result.err
    assert result.document["meta"]["data"]["name"] == ("mine.mnist" if kind == "mnist" else "mine")


def test_a_run_remembers_how_its_data_was_read(
    call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(workspace / "pictures", (8, 6))
    start = [
        "train",
        *TINY,
        "--data",
        "pictures",
        "--image-size",
        "4,5",
        "--steps",
        "2",
        "--batch",
        "4",
        "--out",
        "run",
    ]
    assert call(*start).code == 0
    (workspace / "elsewhere").mkdir()
    monkeypatch.chdir(workspace / "elsewhere")
    result = call("measure", "--model", workspace / "run", *QUICKLY, "--json")
    assert result.code == 0, result.err
    assert result.document["meta"]["data"]["shape"] == [1, 4, 5]
    assert call("train", "--resume", "--out", workspace / "run", "--steps", "3").code == 0
    line = call("measure", "--model", workspace / "run", *QUICKLY, "--image-size", "4").err
    assert "--image-size: expected --data beside it" in line
    write_picture(workspace / "pictures" / "a" / "0.png", pixels(8, 6, seed=99))
    assert "samples that have changed since" in call("measure", "--model", workspace / "run", *QUICKLY).err


def test_samples_are_compared_with_held_out_pictures(call: Any, workspace: Path) -> None:
    write_classes(workspace / "pictures")
    result = call(
        "sample", *TINY, "--data", "pictures", "--count", "6", "--steps", "2", "--out", "s.npy", "--json"
    )
    assert result.code == 0, result.err
    assert "energy distance" in result.document["quality"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "pictures"], "Choose one with --image-size."),
        (["--data", "pictures", "--image-size", "0"], "image_size: expected an integer of at least 1"),
        (["--data", "pictures", "--image-size", "4.5"], "--image-size: expected whole numbers"),
        (["--data", "pictures", "--image-size", "1,2,3"], "image_size: expected a side, or height and width"),
        (["--data", "pictures", "--image-size", "four"], "--image-size: expected numbers"),
        (["--data", "pictures", "--image-size", "4", "--pixel-range", "1,-1"], "pixel_range: expected low below high"),
        (["--data", "pictures", "--data-key", "x"], "data_key: expected a file of several arrays"),
        (["--data", "two.npz"], "Choose one with --data-key."),
        (["--data", "digits", "--image-size", "16"], "image_size: expected none beside the data set digits"),
        (["--data", "empty"], "expected a folder with pictures in it; got none"),
        (["--data", "nothing"], "expected one of digits, mixture; got 'nothing'"),
        (["--data", "./nothing"], "no file or folder of that name"),
        (["--data", "notes.txt"], "got a file of another kind"),
        (["--data", "bomb.pt"], "without running code"),
        (["--data", "objects.npz"], "of Python objects"),
        (["--data", "mixed"], "notes.txt: expected pictures alone"),
        (["--data", "spoiled"], "bad.png: expected a picture that can be read"),
        (["--data", "loop"], "a link to a folder that it lies in"),
        (["--data", "huge.idx"], "expected a whole idx file"),
    ],
)  # fmt: skip
def test_bad_data_is_one_line(refused: Refused, workspace: Path, options: list[str], words: str) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("code from a data file was run",))

    write_picture(workspace / "pictures" / "a.png", pixels(4, 4))
    write_picture(workspace / "pictures" / "b.png", pixels(5, 4))
    np.savez(workspace / "two.npz", a=np.ones((9, 2)), b=np.ones((9, 2)))
    (workspace / "empty").mkdir()
    (workspace / "notes.txt").write_text("notes")
    torch.save(Bomb(), workspace / "bomb.pt")
    np.savez(workspace / "objects.npz", x=np.array([[Bomb()], [Bomb()]], dtype=object))
    for folder in ("mixed", "spoiled"):
        write_picture(workspace / folder / "a.png", pixels(4, 4))
    (workspace / "mixed" / "notes.txt").write_text("notes")
    (workspace / "spoiled" / "bad.png").write_bytes((workspace / "mixed" / "a.png").read_bytes()[:50])
    if "loop" in options:
        (workspace / "loop").mkdir()
        (workspace / "loop" / "again").symlink_to(workspace / "loop")
    (workspace / "huge.idx").write_bytes(bytes([0, 0, 8, 2]) + (10**9).to_bytes(4, "big") * 2)
    assert words in refused(*MEASURE, *options)
