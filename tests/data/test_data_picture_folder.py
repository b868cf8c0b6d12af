"""Folders of pictures: classes, parts, colours and sizes; and everything in them that is no picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import pixels, write_picture

from ntkdiag import data
from ntkdiag.data.files import picture_folder
from ntkdiag.errors import InputError


def line(folder: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        data.load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes of colour pictures, three of each."""
    for number in range(6):
        kind = ("cat", "dog")[number % 2]
        write_picture(tmp_path / kind / f"{number}.png", pixels(6, 5, 3, seed=number))
    return tmp_path


def test_classes_are_subfolders_and_order_is_that_of_names(classes: Path) -> None:
    found = data.load(classes, held_out=0)
    assert found.shape == (3, 6, 5) and found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for sample, number in zip(found.train, (0, 2, 4, 1, 3, 5), strict=True):
        truth = -1 + 2 * pixels(6, 5, 3, seed=number).astype(np.float64) / 255
        assert np.allclose(sample.double().numpy(), truth.transpose(2, 0, 1), atol=1e-6)
    assert "labels by folder: cat, dog" in found.description
    assert found.name == classes.name


def test_pictures_without_subfolders_have_no_labels(tmp_path: Path) -> None:
    for number in range(5):
        write_picture(tmp_path / f"{number}.png", pixels(4, 4, seed=number))
    (tmp_path / ".hidden.txt").write_text("left out")
    found = data.load(tmp_path)
    assert found.labels is None and found.shape == (1, 4, 4) and len(found.held_out) == 1
    assert "gray pictures" in found.description


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "val")])
def test_train_and_test_are_the_two_parts(tmp_path: Path, train: str, test: str) -> None:
    for part, count in ((train, 4), (test, 2)):
        for number in range(count):
            write_picture(tmp_path / part / "ab"[number % 2] / f"{number}.png", pixels(4, 4, seed=number))
    write_picture(tmp_path / test / "b" / "colour.png", pixels(4, 4, 3))
    found = data.load(tmp_path)
    assert (len(found.train), len(found.held_out)) == (4, 3)
    assert found.shape == (3, 4, 4)  # one number of channels for both parts
    assert found.labels.tolist() == [0, 0, 1, 1] and found.held_out_labels.tolist() == [0, 1, 1]


def test_every_mode_of_pillow_is_read(tmp_path: Path) -> None:
    gray = pixels(4, 4)
    for mode in ("1", "L", "LA", "RGB", "RGBA", "P"):
        write_picture(tmp_path / f"{mode}.png", gray, mode)
    write_picture(tmp_path / "sixteen.png", gray.astype(np.uint16) * 257)
    write_picture(tmp_path / "CMYK.jpg", gray, "CMYK")
    found = data.load(tmp_path, held_out=0)
    assert found.shape == (3, 4, 4)
    expected = torch.from_numpy(-1 + 2 * gray.astype(np.float64) / 255).expand(3, 4, 4)
    files = sorted(path.name for path in tmp_path.iterdir())
    exact = {"L.png", "LA.png", "RGB.png", "RGBA.png", "P.png", "sixteen.png"}
    for name, sample in zip(files, found.train, strict=True):
        if name in exact:
            assert torch.allclose(sample.double(), expected, atol=1e-6), name
    only_gray = tmp_path / "gray"
    for name in ("L.png", "sixteen.png"):
        only_gray.mkdir(exist_ok=True)
        (tmp_path / name).rename(only_gray / name)
    both = data.load(only_gray, held_out=0).train
    assert both.shape == (2, 1, 4, 4) and torch.allclose(both[0], both[1], atol=1e-6)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    array = np.zeros((2, 2, 4), dtype=np.uint8)
    array[0, 0, 3] = 255
    write_picture(tmp_path / "a.png", array)
    sample = data.load(tmp_path).train[0]
    assert sample[:, 0, 0].tolist() == [-1, -1, -1]
    assert (sample.flatten(1)[:, 1:] == 1).all()


def test_several_sizes_need_one_that_is_stated(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", pixels(8, 6))
    write_picture(tmp_path / "b.png", pixels(6, 8))
    text = line(tmp_path)
    assert "pictures of one size; got 8 × 6 (a.png), 6 × 8 (b.png). Choose one with image_size=." in text
    assert data.load(tmp_path, image_size=4).shape == (1, 4, 4)


def test_of_large_data_only_what_is_drawn_is_read(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data.load(classes, held_out=0).train
    read: list[str] = []
    real = picture_folder.sample_of

    def counted(picture: Any, *rest: Any) -> torch.Tensor:
        read.append(Path(picture.filename).name)
        return real(picture, *rest)

    monkeypatch.setattr("ntkdiag.data.source.SMALL", 100)
    monkeypatch.setattr(picture_folder, "sample_of", counted)
    found = data.load(classes, held_out=0)
    assert read == []
    assert torch.equal(found.train[torch.tensor([4, 0])], whole[[4, 0]])
    assert read == ["3.png", "0.png"]


def test_of_very_many_pictures_some_headers_are_read_and_the_rest_checked_when_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        write_picture(tmp_path / f"{number}.png", pixels(4, 4, seed=number))
    write_picture(tmp_path / "1.png", pixels(4, 4, 3))
    write_picture(tmp_path / "2.png", pixels(6, 4))
    monkeypatch.setattr(picture_folder, "_HEADERS", 3)  # those of 0.png, 3.png and 6.png
    monkeypatch.setattr("ntkdiag.data.source.SMALL", 100)
    found = data.load(tmp_path, held_out=0).train
    assert found[0].shape == (1, 4, 4)
    with pytest.raises(
        InputError, match=r"1\.png: expected a picture as the others are, gray, 4 × 4; got coloured"
    ):
        found[1]
    with pytest.raises(
        InputError, match=r"2\.png: expected a picture as the others are, gray, 4 × 4; got gray, 6 × 4"
    ):
        found[2]


# what is no picture


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "expected a folder with pictures in it; got none" in line(tmp_path)
    (tmp_path / "cat").mkdir()
    assert "expected a folder with pictures in it; got none" in line(tmp_path)


def test_a_file_that_is_no_picture_is_named(classes: Path) -> None:
    (classes / "cat" / "notes.txt").write_text("a cat")
    assert "notes.txt: expected pictures alone" in line(classes)
    (classes / "cat" / "notes.txt").rename(classes / "cat" / "notes.png")
    text = line(classes)
    assert "notes.png: expected a picture that can be read; got UnidentifiedImageError" in text


def test_a_truncated_picture_is_named_before_anything_is_measured(classes: Path) -> None:
    write_picture(classes / "cat" / "x.png", pixels(6, 5, 3))
    content = (classes / "cat" / "x.png").read_bytes()
    (classes / "cat" / "x.png").write_bytes(content[: len(content) // 2])
    assert "x.png: expected a picture that can be read; got" in line(classes)


def test_a_picture_that_would_run_a_program_is_refused(classes: Path) -> None:
    (classes / "cat" / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 5\n%%EndComments\nshowpage\n"
    )
    assert "x.png: expected a picture that can be read" in line(classes)


def test_a_picture_of_too_many_pixels_is_refused(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 20
    )  # Pillow warns from here, and raises from twice as many
    assert "expected a picture that can be read; got DecompressionBomb" in line(classes)


def test_a_picture_of_32_bits_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.tif", np.ones((4, 4), dtype=np.float32))
    assert "8 or 16 bits a channel; got Pillow's mode F" in line(tmp_path)


def test_links_in_a_circle_end(classes: Path) -> None:
    (classes / "cat" / "again").symlink_to(classes)
    assert "a link to a folder that it lies in" in line(classes)
    (classes / "cat" / "again").unlink()
    (classes / "loop.png").symlink_to(classes / "loop.png")
    assert "loop.png: expected a file or a folder; got a link that leads nowhere" in line(classes)


def test_links_to_pictures_and_folders_are_followed(classes: Path, tmp_path_factory: Any) -> None:
    other = tmp_path_factory.mktemp("other")
    write_picture(other / "bird" / "1.png", pixels(6, 5, 3))
    (classes / "bird").symlink_to(other / "bird")
    (classes / "cat" / "linked.png").symlink_to(other / "bird" / "1.png")
    assert data.load(classes, held_out=0).labels.tolist() == [0, 1, 1, 1, 1, 2, 2, 2]


def test_a_pipe_is_not_waited_for(classes: Path) -> None:
    os.mkfifo(classes / "cat" / "x.png")
    assert "a pipe or a device" in line(classes)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(classes: Path) -> None:
    (classes / "cat").chmod(0)
    assert "a folder that can be read" in line(classes)
