"""What a run writes along the way: tables at every checkpoint, samples, and TensorBoard's events where it is installed."""

from __future__ import annotations

import errno
import io
import sys
import threading
from dataclasses import replace
from types import ModuleType
from typing import ClassVar

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from train_cases import QUICK, Doubling, small_data, small_denoiser

import ntkdiag as nd
from ntkdiag.train import sample, train
from ntkdiag.train.checkpoints.checkpoint import read_manifest
from ntkdiag.train.logs.pictures import grid, png
from ntkdiag.train.logs.tables import refreshes_table
from ntkdiag.train.logs.tensorboard import TensorBoard
from ntkdiag.weights import Refresher


def read(path):
    return pd.read_csv(path)


def test_the_history_is_there_at_every_checkpoint_and_is_that_of_the_result(tmp_path):
    out = tmp_path / "run"
    seen = []
    weights = Doubling(lambda step: seen.append(len(read(out / "history.csv")) if step > 6 else None))
    result = train(small_denoiser(), small_data(), weights, QUICK, out=out, buckets=3)
    assert seen[6:11] == [1] * 5  # the row of step 5 since the checkpoint of step 6
    pd.testing.assert_frame_equal(read(out / "history.csv"), result.history)


def test_the_history_has_the_weights_in_force(tmp_path):
    table = nd.weights.rule("erd", "v", nd.schedules.cosine())
    result = train(small_denoiser(), small_data(), table, QUICK, buckets=4)
    columns = [f"weight_bucket_{k}" for k in range(4)]
    centres = torch.tensor(result.buckets.centers, dtype=torch.float64)
    assert result.history[columns].to_numpy().tolist() == [table(centres).tolist()] * 3
    changing = train(small_denoiser(), small_data(), Doubling(), QUICK, buckets=[-9, -1, 9]).history
    assert changing["weight_bucket_0"].tolist() == [1, 1, 1]
    assert changing["weight_bucket_1"].tolist() == pytest.approx([1.05, 1.1, 1.12])
    constant = train(small_denoiser(), small_data(), None, QUICK, buckets=4).history
    assert not [name for name in constant if name.startswith("weight_")]


def pictures():
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def refresher(every=4):
    def score():
        return torch.tensor([-3.0, 0.0, 3.0]), torch.tensor([1.0, 2.0, 0.5])

    return Refresher(score, "v", nd.schedules.cosine(), every=every)


def test_refreshes_are_a_table(tmp_path):
    weights = refresher()
    train(small_denoiser(), small_data(), weights, QUICK, out=tmp_path / "run")
    table = read(tmp_path / "run" / "refreshes.csv")
    assert table["step"].tolist() == [4] * 3 + [8] * 3 + [12] * 3
    assert table["log_snr"].tolist() == [-3.0, 0.0, 3.0] * 3
    assert table["score"].tolist() == [1.0, 2.0, 0.5] * 3
    assert table["weight"].tolist() == [w for record in weights.history for w in record.weight]
    assert table["accepted"].all()


def test_a_refresh_that_failed_has_a_row_with_its_reason():
    def failing():
        raise nd.errors.MeasurementError("nothing to see")

    weights = Refresher(failing, "v", nd.schedules.cosine(), every=2)
    weights.after_step(2)
    (row,) = refreshes_table(weights.state_dict()).to_dict("records")
    assert (row["step"], row["accepted"], row["log_snr"]) == (2, False, None)
    assert "nothing to see" in row["reason"]
    assert refreshes_table({"steps": 3}) is None
    assert refreshes_table({"history": []}) is None


def test_an_interrupted_run_ends_with_the_same_tables_and_samples(tmp_path):
    config = replace(QUICK, sample_every=5)
    for name, steps in (("straight", [12]), ("resumed", [7, 12])):
        for count, to in enumerate(steps):
            train(
                small_denoiser(), small_data(), refresher(), replace(config, steps=to), out=tmp_path / name,
                resume=count > 0,
            )  # fmt: skip
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    # A row ends where the first part of the run did.
    assert read(resumed / "history.csv")["step"].tolist() == [5, 7, 10, 12]
    assert (resumed / "refreshes.csv").read_bytes() == (straight / "refreshes.csv").read_bytes()
    assert sorted(file.name for file in (straight / "samples").iterdir()) == [
        "step-00000005.npy",
        "step-00000010.npy",
    ]
    for file in (straight / "samples").iterdir():
        assert file.read_bytes() == (resumed / "samples" / file.name).read_bytes()


def test_samples_are_those_of_the_average_and_change_nothing(tmp_path):
    with_samples = train(
        small_denoiser(), small_data(), None, replace(QUICK, sample_every=12), out=tmp_path / "run"
    )
    without = train(small_denoiser(), small_data(), None, QUICK)
    for one, other in zip(with_samples.denoiser.parameters(), without.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)
    drawn = np.load(tmp_path / "run" / "samples" / "step-00000012.npy")
    assert np.array_equal(drawn, sample(with_samples.denoiser, 64, (2,)).numpy())


def test_pictures_of_a_network_with_labels_have_those_of_the_data(tmp_path):
    network = nd.models.build("dit", (1, 4, 4), width=8, depth=1, heads=2, frequencies=4, classes=3)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    data = nd.data.as_data(pictures(), labels=torch.arange(6) % 3)
    result = train(denoiser, data, None, replace(QUICK, steps=2, sample_every=2), out=tmp_path / "run")
    drawn = torch.from_numpy(np.load(tmp_path / "run" / "samples" / "step-00000002.npy"))
    expected = sample(result.denoiser, len(data.train), (1, 4, 4), cond={"label": data.labels})
    assert torch.equal(drawn, expected)
    picture = matplotlib.image.imread(tmp_path / "run" / "samples" / "step-00000002.png")
    assert np.array_equal((picture[..., :3] * 255).round().astype("uint8"), grid(drawn))


@pytest.mark.parametrize(("count", "channels", "size"), [(1, 1, (3, 4)), (2, 3, (3, 9)), (5, 1, (7, 14))])
def test_a_grid_has_each_picture_in_its_place(count, channels, size):
    samples = torch.linspace(-1.5, 1.5, count * channels * 12).reshape(count, channels, 3, 4)
    pixels = grid(samples)
    assert pixels.shape == (*size, 3)
    columns = (size[1] + 1) // 5
    for place in range(count):
        top, left = place // columns * 4, place % columns * 5
        block = torch.from_numpy(pixels[top : top + 3, left : left + 4]).permute(2, 0, 1).double()
        assert torch.allclose(
            block / 127.5 - 1, samples[place].double().clamp(-1, 1).expand(3, 3, 4), atol=0.005
        )
    assert png(pixels) == png(pixels)


@pytest.mark.parametrize("shape", [(4, 2), (4, 4, 3, 3), (4, 3, 3)])
def test_other_samples_have_no_grid(shape):
    assert grid(torch.zeros(shape)) is None


class Recorder:
    """Keeps what torch's SummaryWriter would be called with."""

    made: ClassVar = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.images, self.closed = (
            folder,
            purge_step,
            [],
            [],
            False,
        )
        Recorder.made.append(self)

    def add_scalar(self, *arguments):
        self.scalars.append(arguments)

    def add_image(self, name, pixels, step, dataformats):
        self.images.append((name, pixels.shape, step, dataformats))

    def close(self):
        self.closed = True


@pytest.fixture
def recorder(monkeypatch):
    """TensorBoard in name, and torch's writer for it replaced by one that remembers."""
    Recorder.made = []
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Recorder
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "tensorboard" else None)
    return Recorder


def test_events_have_the_loss_and_the_weight_of_every_bucket(tmp_path, recorder):
    result = train(
        small_denoiser(), small_data(), refresher(), QUICK, out=tmp_path / "run", buckets=[-4, 0, 1]
    )
    (writer,) = recorder.made
    assert writer.closed
    assert writer.folder == str(tmp_path / "run" / "tensorboard")
    kept = {(name, step): value for name, value, step in writer.scalars}
    for row in result.history.to_dict("records"):
        assert kept["loss", row["step"]] == row["loss"]
        assert kept["loss_bucket/log_snr_-2", row["step"]] == row["loss_bucket_0"]
        assert kept["weight_bucket/log_snr_+0.5", row["step"]] == row["weight_bucket_1"]
    again = replace(QUICK, steps=15)
    train(
        small_denoiser(),
        small_data(),
        refresher(),
        again,
        out=tmp_path / "run",
        buckets=[-4, 0, 1],
        resume=True,
    )
    assert recorder.made[1].purge_step == 15


def test_events_that_cannot_be_written_end_the_run_in_a_line(tmp_path, recorder, monkeypatch, capsys):
    """TensorBoard writes in a thread, which prints a traceback, and raises its error at the next call and when closed."""

    class _AsyncWriterThread(threading.Thread):
        def run(self):
            raise no_room

    def failed(*arguments):
        thread = _AsyncWriterThread()
        thread.start()
        thread.join()
        raise no_room

    no_room = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(
        recorder, "add_scalar", lambda self, name, value, step: failed() if step == 10 else None
    )
    monkeypatch.setattr(recorder, "close", failed)
    out = tmp_path / "run"
    with pytest.raises(nd.errors.InputError, match=r"tensorboard: .*with room for events; got No space left"):
        train(small_denoiser(), small_data(), None, QUICK, out=out)
    assert capsys.readouterr().err == ""
    assert read_manifest(out).step == 6
    out.rename(tmp_path / "moved")
    with pytest.raises(nd.errors.InputError, match=r"tensorboard: .*got No such file or directory"):
        TensorBoard(out / "tensorboard", nd.Buckets.uniform(-1, 1, 2)).row({"step": 5})
    assert not out.exists()  # not made again


def test_the_file_of_events_is_closed_after_an_error(tmp_path, recorder):
    def stop(step):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small_denoiser(), small_data(), Doubling(stop), QUICK, out=tmp_path / "run")
    assert recorder.made[0].closed


def test_tensorboard_reads_the_events(tmp_path):
    """The real one, where it is installed."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    network = nd.models.build("dit", (1, 4, 4), width=8, depth=1, heads=2, frequencies=4)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    config = replace(QUICK, sample_every=6)
    result = train(denoiser, pictures(), None, config, out=tmp_path / "run", buckets=2)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(result.history["loss"].tolist())
    assert [event.step for event in events.Images("samples")] == [6, 12]


def test_nothing_is_written_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    train(small_denoiser(), small_data(), None, QUICK, out=tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_png_is_read_as_it_was(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    found = matplotlib.image.imread(io.BytesIO(png(pixels)))
    assert np.array_equal((found[..., :3] * 255).round().astype("uint8"), pixels)
