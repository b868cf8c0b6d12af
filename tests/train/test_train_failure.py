"""A loss that is not finite: what the error names, what is kept, and that the network was not spoilt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from train_cases import QUICK, small_data, small_denoiser

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.process.buckets import Buckets
from ntkdiag.train import train
from ntkdiag.train.checkpoints.checkpoint import read_manifest
from ntkdiag.train.failure import described

BUCKETS = [-20.0, -2.0, 0.5, 20.0]


class Sour:
    """Weights that are infinite at log-SNR from `low` to `high` from one step on."""

    target = "v"

    def __init__(self, step, low, high):
        self.step, self.low, self.high, self.done, self.asked = step, low, high, 0, []

    def __call__(self, log_snr):
        self.asked.append(log_snr)
        bad = (log_snr >= self.low) & (log_snr < self.high) & (self.done + 1 >= self.step)
        return torch.where(bad, float("inf"), 1.0)

    def after_step(self, step):
        self.done = step

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.done = 0


def failing(weights, out=None, **settings):
    denoiser = small_denoiser()
    with pytest.raises(MeasurementError) as caught:
        train(denoiser, small_data(), weights, replace(QUICK, **settings), out=out, buckets=BUCKETS)
    return denoiser, str(caught.value)


def test_the_error_names_the_step_the_bucket_and_the_samples(tmp_path):
    weights = Sour(8, -2.0, 0.5)
    _, words = failing(weights, tmp_path / "run")
    file = tmp_path / "run" / "failed-00000008.safetensors"
    kept = load_file(file)
    level = weights.asked[-1]
    bad = (level >= -2.0) & (level < 0.5)
    samples = kept["step.drawn"][bad].tolist()
    assert "at step 8. " in words
    named = ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")
    assert (
        f"{len(samples)} of 16 samples, number {named} of the training data, in bucket 1 (log-SNR -2 to 0.5)."
        in words
    )
    assert words.endswith(f"kept in {tmp_path / 'run'}, the state at the failure in {file.name}.")
    data = small_data().train
    assert torch.equal(kept["step.x0"], data[kept["step.drawn"]])
    assert torch.equal(kept["step.log_snr"].float(), level)
    assert torch.equal(torch.isfinite(kept["step.weighted_losses"]), ~bad)
    assert read_manifest(tmp_path / "run").step == 6


def test_the_network_is_as_the_step_before_left_it_and_the_state_is_whole(tmp_path):
    denoiser, _ = failing(Sour(8, -2.0, 0.5), tmp_path / "run")
    before = train(small_denoiser(), small_data(), None, replace(QUICK, steps=7), buckets=BUCKETS)
    plain = small_denoiser()
    train(plain, small_data(), None, replace(QUICK, steps=7), buckets=BUCKETS)
    kept = load_file(tmp_path / "run" / "failed-00000008.safetensors")
    for name, value in plain.network.state_dict().items():
        assert torch.equal(denoiser.network.state_dict()[name], value)
        assert torch.equal(kept[f"model.{name}"], value)
        assert torch.equal(kept[f"average.{name}"], before.denoiser.network.state_dict()[name])
    assert any(name.startswith("optimizer.") for name in kept)
    assert any(name.startswith("generator.") for name in kept)


def test_a_disk_without_room_for_the_state_does_not_hide_the_failure(tmp_path, monkeypatch):
    def full(*arguments):
        raise InputError(
            "failed.safetensors", expected="a file with room for it", got="No space left on device"
        )

    monkeypatch.setattr("ntkdiag.train.failure.write_tensors", full)
    _, words = failing(Sour(8, -2.0, 0.5), tmp_path / "run")
    assert "a finite loss and gradient; got" in words and "at step 8. " in words
    assert words.endswith("the state at the failure could not be: failed.safetensors: expected a file with room "
                          "for it; got No space left on device.")  # fmt: skip
    assert read_manifest(tmp_path / "run").step == 6


def test_a_device_that_is_not_waited_for_is_asked_at_the_end_of_the_row(tmp_path, monkeypatch):
    monkeypatch.setattr("ntkdiag.train.loop._AT_ONCE", ())
    denoiser, words = failing(Sour(8, -2.0, 0.5), tmp_path / "run")
    kept = load_file(tmp_path / "run" / "failed-00000008.safetensors")
    bad = (kept["step.log_snr"] >= -2.0) & (kept["step.log_snr"] < 0.5)
    first = int(kept["step.drawn"][bad][0])
    assert "at step 8. " in words
    assert f"{int(bad.sum())} of 16 samples, number {first}, " in words
    assert "step.x0" not in kept
    assert not denoiser.network.out.weight.isfinite().all()  # two more steps were done by then


def test_a_gradient_alone_is_said():
    class Root(torch.nn.Module):
        """√|p| at p = 0: the value is finite, its derivative is not."""

        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x, log_snr):
            return x * self.p.abs().sqrt()

    denoiser = small_denoiser()
    denoiser.network = Root()
    with pytest.raises(MeasurementError, match="loss of every sample is finite, the gradient is not"):
        train(denoiser, small_data(), None, QUICK)
    assert torch.equal(denoiser.network.p, torch.zeros(2))


@pytest.mark.parametrize("bad", [0, 3, 9, 12])
def test_what_is_said_of_samples(bad):
    step = {
        "drawn": torch.arange(100, 112),
        "log_snr": torch.tensor([-30.0, -1.0, 3.0] * 4, dtype=torch.float64),
        "weighted_losses": torch.where(torch.arange(12) < bad, float("nan"), 1.0),
    }
    words = described(step, Buckets.from_edges(BUCKETS))
    if bad == 0:
        assert words == "The loss of every sample is finite, the gradient is not."
        return
    named = "100, 101, 102" if bad == 3 else "100, 101, 102, 103, 104, 105, 106, 107, ..."
    places = "no bucket, bucket 1 (log-SNR -2 to 0.5), bucket 2 (log-SNR 0.5 to 20)"
    assert words == f"It is that of {bad} of 12 samples, number {named} of the training data, in {places}."


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, words = failing(Sour(3, -20.0, 20.0))
    assert "16 of 16 samples" in words
    assert "kept" not in words
    assert list(tmp_path.iterdir()) == []
