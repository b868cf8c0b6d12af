"""as_data: whatever people have, in Python; and everything that takes data takes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import pixels, write_mnist
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

import ntkdiag as nd
from ntkdiag.data import as_data
from ntkdiag.errors import InputError

SAMPLES = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 3


class Rows(Dataset[Any]):
    """Rows of a user's own making, which counts those that were read."""

    def __init__(self, make: Any, count: int = 24) -> None:
        self.make, self.count, self.read = make, count, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        self.read.append(number)
        return self.make(number)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return ((sample, int(label)) for sample, label in zip(SAMPLES, LABELS, strict=True))


class Columns:
    """What a data set of Hugging Face offers: a length, rows as dicts, columns by name."""

    column_names = ("image", "label")

    def __init__(self, form: Any = None) -> None:
        self.form = form or Image.fromarray

    def __len__(self) -> int:
        return 24

    def __getitem__(self, key: Any) -> Any:
        if key == "label":
            return LABELS.tolist()
        return {"image": self.form(pixels(4, 4, seed=key)), "label": int(LABELS[key])}


def row(number: int) -> Any:
    return SAMPLES[number], int(LABELS[number])


EVERY = {
    "tensor": (lambda: SAMPLES, False),
    "array": (lambda: SAMPLES.numpy(), False),
    "pair": (lambda: (SAMPLES, LABELS), True),
    "dict": (lambda: {"images": SAMPLES, "labels": LABELS.numpy()}, True),
    "TensorDataset": (lambda: TensorDataset(SAMPLES, LABELS), True),
    "TensorDataset of one": (lambda: TensorDataset(SAMPLES), False),
    "Subset": (lambda: Subset(TensorDataset(SAMPLES, LABELS), range(24)), True),
    "Dataset": (lambda: Rows(row), True),
    "Dataset of samples": (lambda: Rows(lambda number: SAMPLES[number]), False),
    "Dataset of dicts": (lambda: Rows(lambda number: {"x": SAMPLES[number], "y": LABELS[number]}), True),
    "Dataset of arrays": (lambda: Rows(lambda number: (SAMPLES[number].numpy(), LABELS[number].numpy())), True),
    "Dataset of lists": (lambda: Rows(lambda n: {"image": SAMPLES[n].tolist(), "label": int(LABELS[n])}), True),
    "list": (lambda: list(SAMPLES), False),
    "list of pairs": (lambda: [row(number) for number in range(24)], True),
    "generator": (lambda: (row(number) for number in range(24)), True),
    "IterableDataset": (Stream, True),
    "DataLoader": (lambda: DataLoader(TensorDataset(SAMPLES, LABELS), batch_size=5), True),
    "DataLoader, shuffled": (lambda: DataLoader(TensorDataset(SAMPLES, LABELS), batch_size=5, shuffle=True), True),
    "DataLoader of tensors": (lambda: DataLoader(SAMPLES, batch_size=5), False),
    "DataLoader of a stream": (lambda: DataLoader(Stream(), batch_size=5), True),
    "DataLoader of dicts": (
        lambda: DataLoader([{"image": sample, "label": int(n)} for sample, n in zip(SAMPLES, LABELS, strict=True)], 7),
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", EVERY)
def test_everything_gives_the_same_samples_and_labels(kind: str) -> None:
    make, labelled = EVERY[kind]
    before = torch.get_rng_state()
    found = as_data(make())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.allclose(found.train.double(), SAMPLES.double()) and found.held_out is None
    assert (found.labels is None) != labelled
    assert not labelled or torch.equal(found.labels, LABELS)
    assert "float" in found.description


@pytest.mark.parametrize(
    "form",
    [Image.fromarray, np.asarray, torch.from_numpy, lambda array: array[None]],
    ids=["pillow", "array", "tensor", "channels"],
)  # fmt: skip
def test_rows_of_pictures_become_what_files_of_them_do(form: Any, tmp_path: Path) -> None:
    array = np.stack([pixels(4, 4, seed=number) for number in range(24)])
    np.save(tmp_path / "same.npy", array)
    file = nd.data.load(tmp_path / "same.npy", held_out=0)
    found = as_data(Columns(form))
    assert torch.equal(found.train, file.train) and torch.equal(found.labels, LABELS)
    larger = as_data(Columns(form), image_size=6, pixel_range=(0, 1))
    same = nd.data.load(tmp_path / "same.npy", held_out=0, image_size=6, pixel_range=(0, 1))
    assert torch.equal(larger.train, same.train)


def test_parts_of_a_data_set_are_the_parts_of_the_data() -> None:
    found = as_data({"train": Columns(), "validation": Columns(), "extra": 3})
    assert (len(found.train), len(found.held_out)) == (24, 24)
    assert torch.equal(found.held_out_labels, LABELS)


def test_a_loader_keeps_its_collate_function() -> None:
    def halved(rows: Any) -> Any:
        return torch.stack([sample for sample, _ in rows]) / 2, torch.tensor([label for _, label in rows])

    found = as_data(DataLoader(TensorDataset(SAMPLES, LABELS), 5, collate_fn=halved, shuffle=True))
    assert torch.allclose(found.train, SAMPLES / 2) and torch.equal(found.labels, LABELS)


def test_a_loader_with_a_sampler_gives_what_it_samples() -> None:
    loader = DataLoader(TensorDataset(SAMPLES, LABELS), 5, sampler=SubsetRandomSampler([3, 5, 8]))
    found = as_data(loader)
    assert sorted(found.train[:, 0, 0, 0].tolist()) == sorted(SAMPLES[[3, 5, 8], 0, 0, 0].tolist())


def test_a_loader_with_batches_of_its_own_or_without_any_gives_what_it_yields() -> None:
    dataset = TensorDataset(SAMPLES, LABELS)
    chosen = as_data(DataLoader(dataset, batch_sampler=[[3, 5], [8]]))
    assert torch.equal(chosen.train, SAMPLES[[3, 5, 8]]) and torch.equal(chosen.labels, LABELS[[3, 5, 8]])
    single = as_data(DataLoader(dataset, batch_size=None))
    assert torch.equal(single.train, SAMPLES) and torch.equal(single.labels, LABELS)


def test_every_row_of_small_data_is_read_once_beside_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(row)
    assert as_data(rows).labels is not None
    assert len(rows.read) <= 24 + 2


def test_a_stream_that_never_ends_is_cut_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield from SAMPLES

    monkeypatch.setattr("ntkdiag.data.rows.SMALL", 50 * 16 * 4)
    found = as_data(endless())
    assert len(found.train) == 50
    assert "the first rows of a longer generator" in found.description
    loader = DataLoader(Stream(), batch_size=5)
    monkeypatch.setattr("ntkdiag.data.rows.SMALL", 7 * 16 * 4)
    assert as_data(loader).description.startswith(
        "7 samples; the first rows of a longer Stream, as its DataLoader"
    )


def test_random_transformations_are_repeatable_and_differ_between_rows() -> None:
    noisy = Rows(lambda number: torch.randn(3))
    first, again = as_data(noisy), as_data(noisy)
    assert first.digest == again.digest
    assert not torch.equal(first.train[0], first.train[1])


def test_of_large_data_only_the_rows_that_are_drawn_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntkdiag.data.source.SMALL", 100)
    monkeypatch.setattr("ntkdiag.data.rows.SMALL", 100)
    rows = Rows(row)
    found = as_data(rows)
    rows.read.clear()
    assert torch.equal(found.train[torch.tensor([7, 2])], SAMPLES[[7, 2]]) and rows.read == [7, 2]
    assert found.labels is None  # reading them would read every row
    rows.targets = LABELS.tolist()
    assert torch.equal(as_data(rows).labels, LABELS)


def test_floats_in_memory_are_shared_and_keep_their_width() -> None:
    wide = SAMPLES.double()
    assert as_data(wide).train.data_ptr() == wide.data_ptr()
    assert as_data(wide.numpy()).train.dtype == torch.float64
    assert as_data(SAMPLES.half()).train.dtype == torch.float32
    backwards = SAMPLES.numpy()[::-1]
    assert torch.equal(as_data(backwards).train, SAMPLES.flip(0))
    fixed = SAMPLES.numpy().copy()
    fixed.flags.writeable = False
    assert torch.equal(as_data(fixed).train, SAMPLES)
    other = SAMPLES.numpy().astype(">f4")
    assert torch.equal(as_data(other).train, SAMPLES)
    assert not as_data(SAMPLES.clone().requires_grad_()).train.requires_grad


def test_data_comes_back_and_options_are_followed() -> None:
    data = nd.data.mixture(10, 5)
    assert as_data(data) is data
    found = as_data(SAMPLES, labels=LABELS, name="mine", held_out=0.25, seed=4)
    assert (found.name, len(found.train), len(found.held_out)) == ("mine", 18, 6)
    place = {tuple(sample.flatten().tolist()): label for sample, label in zip(SAMPLES, LABELS, strict=True)}
    assert all(
        place[tuple(s.flatten().tolist())] == n for s, n in zip(found.train, found.labels, strict=True)
    )
    assert all(
        place[tuple(s.flatten().tolist())] == n
        for s, n in zip(found.held_out, found.held_out_labels, strict=True)
    )
    assert as_data(SAMPLES[:1], held_out=0.5).held_out is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "got None"),
        (3, "expected ntkdiag.data.Data, a tensor or array .* got int"),
        (b"x", "got bytes"),
        (SAMPLES.long(), "floating-point or uint8 array; got dtype int64"),
        (torch.zeros(5), r"and one dimension; got shape \[5\]"),
        (SAMPLES / 0, "NaN or infinity in sample 0"),
        ([], "at least one row; got an empty list"),
        (["a", "b"], "row 0 of the data: expected a tensor, an array"),
        ([[1.0, 2.0], [3.0]], r"row 1 of the data: expected a sample of shape \[2\], as in row 0; got \[1\]"),
        ([{"a": SAMPLES, "b": SAMPLES}], r"one column of samples, such as image; got a, b. Choose one with data_key=\."),
        (iter([]), "at least one row"),
        ((SAMPLES, LABELS[:5]), "labels: expected 24 whole numbers"),
        ((SAMPLES, SAMPLES), "labels: expected 24 whole numbers"),
        ({"a": SAMPLES, "b": SAMPLES}, "one array of samples"),
        ({"step": 3}, "expected an array of samples"),
        (Rows(lambda number: 1 / 0), "row 0 of the data: expected a row that can be read; got ZeroDivisionError"),
        (Rows(lambda number: SAMPLES[number, 0, : 4 - number % 2]), r"row 1 .* expected a sample of shape \[4, 4\]"),
        ("nothing.npz", "no such file"),
        ("digitz", "Did you mean 'digits'"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_refused_in_words(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        as_data(given)
    assert "\n" not in str(caught.value)


def test_rows_of_several_sizes_and_colours_are_refused() -> None:
    sizes = [Image.fromarray(pixels(4, 4)), Image.fromarray(pixels(6, 4))]
    with pytest.raises(InputError, match=r"row 1 .*got \[1, 6, 4\]. Give pictures one size with image_size="):
        as_data(sizes)
    assert as_data(sizes, image_size=4).shape == (1, 4, 4)
    with pytest.raises(InputError, match="row 1 of the data: expected a gray picture, as in row 0"):
        as_data([Image.fromarray(pixels(4, 4)), Image.fromarray(pixels(4, 4, 3))])
    assert as_data([Image.fromarray(pixels(4, 4, 3)), Image.fromarray(pixels(4, 4))]).shape == (3, 4, 4)


@pytest.mark.parametrize("share", [-0.1, 1, "half", True])
def test_a_share_that_cannot_be_held_out_is_refused(share: Any) -> None:
    with pytest.raises(InputError, match="held_out: expected a number"):
        as_data(SAMPLES, held_out=share)


# everything that takes data


def denoiser() -> nd.Denoiser:
    network = nd.models.build("dit", (1, 4, 4), width=8, depth=1, heads=2, frequencies=4)
    return nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")


def test_measure_takes_data_as_people_have_them(tmp_path: Path) -> None:
    wanted = nd.measure(denoiser(), nd.data.Data("data", SAMPLES), 2, samples=4, probes=2)
    for given in (
        SAMPLES,
        SAMPLES.numpy(),
        TensorDataset(SAMPLES, LABELS),
        DataLoader(TensorDataset(SAMPLES), 5),
    ):
        found = nd.measure(denoiser(), given, 2, samples=4, probes=2)
        assert torch.equal(found.grams["trace"], wanted.grams["trace"])
        assert found.meta["data"]["digest"] == wanted.meta["data"]["digest"]
    np.save(tmp_path / "mine.npy", SAMPLES.numpy())
    found = nd.measure(denoiser(), tmp_path / "mine.npy", 2, samples=4, probes=2)
    assert found.meta["data"]["description"].endswith("5 of them are held out (seed 0)")
    assert found.meta["data"]["name"] == "mine"


def test_a_large_file_is_measured_by_reading_what_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is that of the samples in memory, and what was not drawn may even be bad."""
    many = SAMPLES.repeat(40, 1, 1, 1).numpy()
    np.save(tmp_path / "mine.npy", many)
    small = nd.data.load(tmp_path / "mine.npy")
    monkeypatch.setattr("ntkdiag.data.source.SMALL", 100)
    monkeypatch.setattr("ntkdiag.process.bayes.bounds.MAX_SAMPLES", 8)
    monkeypatch.setattr("ntkdiag.process.bayes.bounds.MIN_SAMPLES", 8)
    large = nd.data.load(tmp_path / "mine.npy")
    assert isinstance(large.train, nd.data.LazySamples) and large.train.shape == small.train.shape
    assert torch.equal(large.train[:], small.train) and torch.equal(large.held_out[3], small.held_out[3])
    for full in (None, nd.FullSettings(top_k=2, quadrature_vectors=0)):
        pair = [nd.measure(denoiser(), data, 2, samples=4, probes=2, full=full) for data in (small, large)]
        assert torch.equal(pair[0].grams["trace"], pair[1].grams["trace"])
        assert pair[0].summary["bayes_share"].tolist() == pair[1].summary["bayes_share"].tolist()
    assert large.digest == nd.data.load(tmp_path / "mine.npy").digest != small.digest
    assert large.variance == pytest.approx(small.variance)
    read: list[int] = []
    real = type(large.train.reader).read
    monkeypatch.setattr(
        type(large.train.reader), "read", lambda self, rows: read.extend(rows) or real(self, rows)
    )
    nd.measure(denoiser(), large, 2, samples=4, probes=2)
    assert (
        len(set(read)) < 4 + 8 + 64 + 64 + 5 < len(many) / 2
    )  # draws, bounds, digests of both parts, the try
    many[read[0]] = np.nan
    np.save(tmp_path / "mine.npy", many)
    with pytest.raises(
        InputError, match=rf"mine.npy: expected finite numbers; got a NaN or infinity in sample {read[0]}"
    ):
        nd.measure(denoiser(), nd.data.load(tmp_path / "mine.npy"), 2, samples=4, probes=2)
    other = next(number for number in range(len(many)) if number not in read)
    many[read[0]], many[other] = 0, np.nan
    np.save(tmp_path / "mine.npy", many)
    nd.measure(denoiser(), nd.data.load(tmp_path / "mine.npy"), 2, samples=4, probes=2)


def test_large_data_is_trained_on_row_by_row_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = nd.train.TrainConfig(steps=3, batch=4)
    whole = nd.train.train(denoiser(), Rows(row), None, config)
    monkeypatch.setattr("ntkdiag.data.source.SMALL", 100)
    monkeypatch.setattr("ntkdiag.data.rows.SMALL", 100)
    rows = Rows(row)
    drawn = nd.train.train(denoiser(), rows, None, config)
    assert len(rows.read) < 3 * 4 + 5
    assert drawn.history["loss"].tolist() == whole.history["loss"].tolist()
    wide = as_data(rows).train.to(torch.zeros(1, dtype=torch.float64))
    assert wide[torch.tensor([1])].dtype == torch.float64 and wide[2].shape == (1, 4, 4)


def test_training_and_losses_take_data_as_people_have_them(tmp_path: Path) -> None:
    config = nd.train.TrainConfig(steps=2, batch=4)
    tensor = nd.train.train(denoiser(), SAMPLES, None, config)
    rows = nd.train.train(denoiser(), TensorDataset(SAMPLES, LABELS), None, config)
    assert tensor.history["loss"].tolist() == rows.history["loss"].tolist()
    write_mnist(tmp_path)
    data = nd.data.load(tmp_path, image_size=4)
    assert nd.train.bucket_losses(denoiser(), data, 2).per_sample.shape == (2, 12)


def test_what_needs_held_out_samples_says_so() -> None:
    with pytest.raises(
        InputError, match="expected held-out samples, for the held-out loss; got training samples alone"
    ):
        nd.train.bucket_losses(denoiser(), SAMPLES, 2)
    with pytest.raises(InputError, match="expected held-out samples, for held_out_unseen"):
        nd.measure(denoiser(), SAMPLES, 2, samples=4, held_out_unseen=True)
