"""Arrays from .npy files, honest and hostile."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from ntkdiag import data
from ntkdiag.errors import InputError


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(11, 2, 3, 3))


def saved(folder, array, name="mine.npy"):
    np.save(folder / name, array, allow_pickle=True)
    return folder / name


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_are_taken_as_they_are(tmp_path, images, dtype):
    loaded = data.load(saved(tmp_path, images.astype(dtype)), seed=1)
    assert (len(loaded.train), len(loaded.held_out)) == (8, 3)  # a fifth, rounded up
    assert loaded.name == "mine"
    assert loaded.shape == (2, 3, 3)
    assert loaded.train.dtype == torch.float32
    together = torch.cat([loaded.train, loaded.held_out]).flatten(1)
    wanted = torch.from_numpy(images.astype(dtype).astype("float32")).flatten(1)
    assert torch.equal(together[together[:, 0].argsort()], wanted[wanted[:, 0].argsort()])


def test_bytes_are_scaled_to_minus_one_and_one(tmp_path):
    array = np.arange(256, dtype=np.uint8).reshape(128, 2)
    loaded = data.load(saved(tmp_path, array))
    values = torch.cat([loaded.train, loaded.held_out]).flatten().sort().values
    assert values[0] == -1
    assert values[-1] == 1
    assert torch.allclose(values.diff(), torch.tensor(2 / 255), atol=1e-6)


def test_column_order_and_two_samples_are_enough(tmp_path):
    array = np.asfortranarray([[1.0, 2.0], [3.0, 4.0]])
    loaded = data.load(saved(tmp_path, array))
    assert {tuple(row) for row in torch.cat([loaded.train, loaded.held_out]).tolist()} == {(1, 2), (3, 4)}


def test_seed_decides_the_split_of_a_file(tmp_path, images):
    path = str(saved(tmp_path, images))
    assert data.load(path, 1).digest == data.load(path, 1).digest
    assert data.load(path, 1).digest != data.load(path, 2).digest


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 2), dtype=np.int64), "floating-point or uint8 array; got dtype int64"),
        (np.zeros((5, 2), dtype=bool), "got dtype bool"),
        (np.zeros((5, 2), dtype=complex), "got dtype complex128"),
        (np.array([["a"]]), "got dtype <U1"),
        (np.zeros(5), r"at least one sample and one dimension; got shape \[5\]"),
        (np.zeros((0, 2)), r"got shape \[0, 2\]"),
        (np.zeros((5, 0)), r"got shape \[5, 0\]"),
        (np.array(1.0), r"got shape \[\]"),
    ],
)
def test_arrays_that_are_not_samples_are_refused(tmp_path, array, words):
    with pytest.raises(InputError, match=words):
        data.load(saved(tmp_path, array))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_first_bad_sample_is_named_by_its_row_in_the_file(tmp_path, images, bad):
    images[7, 1, 2, 2] = bad
    with pytest.raises(InputError, match=r"mine.npy: expected finite numbers; got .* sample 7\."):
        data.load(saved(tmp_path, images))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code from a data file was run",))


def test_pickled_code_is_never_run(tmp_path):
    objects = saved(tmp_path, np.array([[Bomb()], [Bomb()]], dtype=object))
    with pytest.raises(InputError, match="without Python objects"):
        data.load(objects)
    bare = tmp_path / "bare.npy"
    bare.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"a whole \.npy file") as caught:
        data.load(bare)
    assert "allow_pickle" not in str(caught.value)


def test_damaged_and_foreign_files_are_refused(tmp_path, images):
    path = saved(tmp_path, images)
    whole = path.read_bytes()
    for part in (0, 5, 40, len(whole) - 1):
        path.write_bytes(whole[:part])
        with pytest.raises(InputError, match=r"a whole \.npy file"):
            data.load(path)
    path.write_bytes(whole.replace(b"(11, 2, 3, 3)", b"(99999999999,)"))  # a header that promises too much
    with pytest.raises(InputError, match=r"a whole \.npy file"):
        data.load(path)
    np.savez(tmp_path / "many.npz", images)
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with pytest.raises(InputError, match="archive"):
        data.load(tmp_path / "many.npy")
    (tmp_path / "text.csv").write_text("1,2\n")
    with pytest.raises(InputError, match=r"expected data as \.npy, .* got a file of another kind"):
        data.load(tmp_path / "text.csv")


def test_missing_file_tells_what_there_is(tmp_path, images):
    saved(tmp_path, images, "train.npy")
    with pytest.raises(InputError, match=r"no such file\. In .*: train.npy\."):
        data.load(tmp_path / "trian.npy")
    with pytest.raises(InputError, match=r"got no such file\.$"):
        data.load(tmp_path / "nowhere" / "x.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(InputError, match="no such file"):
        data.load(tmp_path / "folder.npy")


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 is how an archive begins",  # zipfile.BadZipFile
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (6, 2".ljust(
            128
        ),  # TokenError
    ],
)
def test_damage_of_every_kind_is_refused(content, tmp_path):
    (tmp_path / "mine.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"expected a whole \.npy file without Python objects"):
        data.load(tmp_path / "mine.npy")


@pytest.mark.parametrize("name", ["n" * 300 + ".npy", "nul\x00.npy", "\ud800.npy", "f/" * 3000 + "x.npy"])
def test_a_name_that_no_file_can_have_is_no_file(name, tmp_path):
    with pytest.raises(InputError, match="got no such file"):
        data.load(tmp_path / name)
