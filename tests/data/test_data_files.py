"""Archives of arrays, files of tensors and idx files, honest and hostile."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from data_cases import pixels, write_idx, write_mnist

from ntkdiag import data
from ntkdiag.errors import InputError

SAMPLES = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
LABELS = np.arange(20) % 3


def scaled(array: Any) -> torch.Tensor:
    """Pixels in [-1, 1], from their definition and in float64."""
    return torch.from_numpy(-1 + 2 * array.astype(np.float64) / 255)


def line(path: Path, **options: Any) -> str:
    """The one line with which data is refused."""
    with pytest.raises(InputError) as caught:
        data.load(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def whole(path: Path, **options: Any) -> data.Data:
    """All samples in the order of the file."""
    return data.load(path, held_out=0, **options)


# archives


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_with_one_array_of_samples_is_enough(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "mine.npz", whatever=SAMPLES, y=LABELS, scale=np.ones(3))
    found = whole(tmp_path / "mine.npz")
    assert torch.equal(found.train, torch.from_numpy(SAMPLES)) and found.labels.tolist() == LABELS.tolist()
    assert found.name == "mine" and "labels from 'y'" in found.description


def test_labels_stay_with_their_samples_when_some_are_held_out(tmp_path: Path) -> None:
    samples = np.repeat(LABELS[:, None].astype(np.float32), 4, axis=1)
    np.savez(tmp_path / "mine.npz", x=samples, labels=LABELS)
    found = data.load(tmp_path / "mine.npz", seed=3)
    assert (len(found.train), len(found.held_out)) == (16, 4)
    assert torch.equal(found.train[:, 0].long(), found.labels)
    assert torch.equal(found.held_out[:, 0].long(), found.held_out_labels)


def test_the_test_part_of_an_npz_is_held_out(tmp_path: Path) -> None:
    arrays = {
        "x_train": pixels(9, 4, 4),
        "y_train": np.arange(9),
        "x_test": pixels(5, 4, 4, seed=1),
        "y_test": np.arange(5),
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    found = data.load(tmp_path / "mnist.npz")
    assert found.shape == (1, 4, 4) and found.labels.tolist() == list(range(9))
    assert torch.allclose(found.train[:, 0].double(), scaled(arrays["x_train"]), atol=1e-6)
    assert torch.allclose(found.held_out[:, 0].double(), scaled(arrays["x_test"]), atol=1e-6)
    assert found.held_out_labels.tolist() == list(range(5))


def test_pictures_with_channels_last_become_channels_first(tmp_path: Path) -> None:
    array = pixels(6, 8, 7, 3)
    np.savez(tmp_path / "samples.npz", arr_0=array, arr_1=np.arange(6))
    found = whole(tmp_path / "samples.npz")
    assert found.shape == (3, 8, 7) and found.labels.tolist() == list(range(6))
    assert torch.allclose(found.train.double(), scaled(array.transpose(0, 3, 1, 2)), atol=1e-6)


def test_of_several_arrays_the_key_chooses(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", left=SAMPLES, right=SAMPLES + 1)
    text = line(tmp_path / "mine.npz")
    assert "got left [20, 2, 3], right [20, 2, 3]. Choose one with data_key=." in text
    assert torch.equal(whole(tmp_path / "mine.npz", data_key="right").train, torch.from_numpy(SAMPLES + 1))
    assert "Did you mean 'right'?" in line(tmp_path / "mine.npz", data_key="rihgt")
    np.save(tmp_path / "one.npy", SAMPLES)
    assert "data_key: expected a file of several arrays" in line(tmp_path / "one.npy", data_key="x")


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("code from a data file was run",))


def test_objects_in_an_npz_are_never_unpickled(tmp_path: Path) -> None:
    objects = np.array([[Bomb()], [Bomb()]], dtype=object)
    np.savez(tmp_path / "mine.npz", images=objects)
    assert "images [2, 1] of Python objects" in line(tmp_path / "mine.npz")
    assert "without Python objects" in line(tmp_path / "mine.npz", data_key="images")
    np.savez(tmp_path / "mine.npz", settings=objects, x=SAMPLES)
    assert torch.equal(whole(tmp_path / "mine.npz").train, torch.from_numpy(SAMPLES))


def test_an_npz_that_announces_too_much_is_damage(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 4)}
    )
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + b"\0" * 64)
    assert "a whole .npz file" in line(tmp_path / "mine.npz")


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=SAMPLES)
    content = (tmp_path / "mine.npz").read_bytes()
    for part in (b"", content[:10], content[: len(content) // 2], content[:-1], b"text"):
        (tmp_path / "mine.npz").write_bytes(part)
        assert "a whole .npz file" in line(tmp_path / "mine.npz")
    spoiled = bytearray(content)
    spoiled[len(content) // 2] ^= 0xFF  # the checksum of the archive no longer fits
    (tmp_path / "mine.npz").write_bytes(spoiled)
    assert "a whole .npz file" in line(tmp_path / "mine.npz")
    assert "no such file" in line(tmp_path / "none.npz")


# tensors


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_tensors_by_name_are_read(tmp_path: Path, kind: str) -> None:
    tensors = {"images": torch.from_numpy(SAMPLES), "labels": torch.from_numpy(LABELS)}
    path = tmp_path / f"mine.{kind}"
    if kind == "pt":
        torch.save(tensors | {"about": "mine"}, path)
    else:
        safetensors.torch.save_file(tensors, path)
    found = whole(path)
    assert torch.equal(found.train, torch.from_numpy(SAMPLES)) and found.labels.tolist() == LABELS.tolist()


def test_a_tensor_or_a_pair_in_a_file_of_torch_is_read(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(SAMPLES).double(), tmp_path / "one.pt")
    found = whole(tmp_path / "one.pt")
    assert torch.equal(found.train, torch.from_numpy(SAMPLES)) and found.labels is None
    array = pixels(20, 4, 4)
    torch.save((torch.from_numpy(array), torch.from_numpy(LABELS)), tmp_path / "training.pt")
    found = whole(tmp_path / "training.pt")
    assert found.shape == (1, 4, 4) and found.labels.tolist() == LABELS.tolist()
    assert torch.allclose(found.train[:, 0].double(), scaled(array), atol=1e-6)


def test_files_of_tensors_that_are_no_data_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save(Bomb(), path)
    assert "without running code" in line(path)
    torch.save(torch.ones(1, 1).expand(10**6, 10**6), path)
    assert "which repeats a few of them" in line(path)
    torch.save({"step": 3}, path)
    assert "expected an array of samples" in line(path)
    torch.save(torch.ones(5, 2, device="meta"), path)
    assert "a plain tensor" in line(path)
    torch.save(torch.eye(5).to_sparse(), path)
    assert "a plain tensor" in line(path)
    torch.save(torch.tensor([[1.0], [float("nan")]]), path)
    assert "NaN or infinity in sample 1" in line(path)
    (tmp_path / "mine.safetensors").write_bytes(b"\xff" * 8)
    assert "a whole .safetensors file" in line(tmp_path / "mine.safetensors")


# idx


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_folder_as_mnist_comes(tmp_path: Path, ending: str) -> None:
    array, labels = write_mnist(tmp_path / "mnist", ending)
    found = data.load(tmp_path / "mnist")
    assert found.name == "mnist" and found.shape == (1, 5, 4)
    assert (len(found.train), len(found.held_out)) == (30, 12)
    assert torch.allclose(found.train[:, 0].double(), scaled(array), atol=1e-6)
    assert found.labels.tolist() == labels.tolist() and len(found.held_out_labels) == 12
    alone = data.load(tmp_path / "mnist" / f"train-images-idx3-ubyte{ending}")
    assert (len(alone.train), len(alone.held_out)) == (24, 6) and alone.labels is not None
    assert alone.name == "train-images"


def test_unpacked_files_beside_the_packed_ones_do_no_harm(tmp_path: Path) -> None:
    write_mnist(tmp_path, ".gz")
    write_mnist(tmp_path)
    assert len(data.load(tmp_path).train) == 30
    write_idx(tmp_path / "emnist-train-images-idx3-ubyte", pixels(3, 5, 4))
    assert "expected one idx file of training pictures" in line(tmp_path)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_floats_in_an_idx_file_are_taken_as_they_are(tmp_path: Path, kind: str) -> None:
    write_idx(tmp_path / "mine.idx", SAMPLES, kind)
    assert torch.equal(whole(tmp_path / "mine.idx").train, torch.from_numpy(SAMPLES))


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_damaged_idx_files_are_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"train-images-idx3-ubyte{ending}"
    write_idx(path, pixels(6, 5, 4))
    content = path.read_bytes()
    for part in (b"", content[:3], content[:9], content[:-1], b"some text"):
        path.write_bytes(part)
        assert "expected a whole idx file" in line(path)
    huge = struct.pack(">HBB", 0, 8, 3) + struct.pack(">3I", 10**9, 1000, 1000) + b"\0" * 100
    for header in (huge, struct.pack(">HBB", 0, 7, 1), struct.pack(">HBB", 0, 8, 255)):
        path.write_bytes(gzip.compress(header) if ending else header)
        assert "expected a whole idx file" in line(path)
    path.write_bytes(content + (gzip.compress(b"more") if ending else b"more"))
    assert "another number of values" in line(path)


def test_an_idx_file_of_labels_is_no_data_and_wrong_labels_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    assert "got shape [30]" in line(tmp_path / "train-labels-idx1-ubyte")
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(7))
    assert "expected 30 labels" in line(tmp_path)
    write_idx(tmp_path / "ints.idx", np.ones((4, 3)), "i4")
    assert "floating-point or uint8" in line(tmp_path / "ints.idx")


# what is done to pixels


def test_pixels_take_the_range_that_is_asked_for(tmp_path: Path) -> None:
    array = pixels(8, 1, 4, 4)
    np.save(tmp_path / "mine.npy", array)
    found = whole(tmp_path / "mine.npy", pixel_range=(0, 1))
    assert torch.allclose(found.train.double(), torch.from_numpy(array / 255.0), atol=1e-6)
    assert "pixels 0 to 255 scaled to [0, 1]" in found.description
    np.save(tmp_path / "floats.npy", SAMPLES)
    assert "floating-point values are taken as they are" in line(tmp_path / "floats.npy", pixel_range=(0, 1))
    for wrong in ((1, 0), (0,), (0, float("nan")), "0,1", 3):
        assert "pixel_range: expected" in line(tmp_path / "mine.npy", pixel_range=wrong)


@pytest.mark.parametrize(
    ("shape", "size"), [((9, 9), 6), ((9, 13), 6), ((6, 8), 12), ((8, 8), (4, 8)), ((7, 5), (7, 5))]
)
def test_a_size_is_that_of_pillow_within_a_level_of_its_rounding(
    tmp_path: Path, shape: Any, size: Any
) -> None:
    """Scaled until it covers the size, and the middle cut out, as one would with Pillow."""
    from PIL import Image

    (height, width), wanted = shape, (size, size) if isinstance(size, int) else size
    array = pixels(3, height, width)
    np.save(tmp_path / "mine.npy", array)
    found = whole(tmp_path / "mine.npy", image_size=size)
    assert found.shape == (1, *wanted)
    scale = max(wanted[0] / height, wanted[1] / width)
    covering = (round(width * scale), round(height * scale))
    top, left = (covering[1] - wanted[0]) // 2, (covering[0] - wanted[1]) // 2
    for sample, picture in zip(found.train, array, strict=True):
        resized = np.asarray(Image.fromarray(picture).resize(covering, Image.Resampling.BILINEAR))
        expected = scaled(resized[top : top + wanted[0], left : left + wanted[1]])
        assert (sample[0].double() - expected).abs().max() < 2 / 255


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", SAMPLES)
    assert "image_size: expected pictures [channels, height, width]; got samples of shape [2, 3]" in line(
        tmp_path / "mine.npy", image_size=4
    )
    for wrong in (0, -1, 2.5, (3, 3, 3), "4"):
        assert "image_size: expected" in line(tmp_path / "mine.npy", image_size=wrong)
    with pytest.raises(InputError, match="image_size: expected none beside the data set digits"):
        data.load("digits", image_size=16)


# names


@pytest.mark.parametrize("name", ["n" * 300, "nul\0", "\ud800", "f/" * 3000 + "x", "~nobody/x.npz", "", "."])
def test_a_name_that_leads_nowhere_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line(Path(name))
