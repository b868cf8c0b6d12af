"""Weights on disk: what goes out comes back, and nothing that does not fit comes in."""

from __future__ import annotations

import pickle

import pytest
import safetensors.torch
import torch
from torch import nn
from train_cases import small_denoiser

from ntkdiag.errors import InputError
from ntkdiag.state_dicts import load_weights, save_weights


@pytest.fixture
def stored(tmp_path):
    denoiser = small_denoiser(seed=1)
    save_weights(denoiser, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors", denoiser.network.state_dict()


def rewrite(path, change):
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def test_weights_come_back_for_a_denoiser_and_for_its_network(stored):
    path, wanted = stored
    for load_into in (small_denoiser(seed=2), small_denoiser(seed=2).network):
        load_weights(load_into, path)
        network = getattr(load_into, "network", load_into)
        assert all(torch.equal(network.state_dict()[name], value) for name, value in wanted.items())
    assert set(safetensors.torch.load_file(path)) == set(wanted)


def test_numbers_are_cast_to_the_networks_dtype(stored):
    path, wanted = stored
    denoiser = small_denoiser(seed=2, dtype=torch.float64)
    load_weights(denoiser, path)
    assert denoiser.network.out.weight.dtype == torch.float64
    assert torch.equal(denoiser.network.out.weight, wanted["out.weight"].double())


def test_tied_weights_are_written_and_read(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight

    source, destination = Tied(), Tied()
    save_weights(source, tmp_path / "w.safetensors")
    load_weights(destination, tmp_path / "w.safetensors")
    assert torch.equal(destination.second.weight, source.first.weight)
    assert destination.second.weight is destination.first.weight


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t.pop("out.bias"),
            r"for MLP: expected its 9 tensors; got 1 missing \(first: out.bias \[2\]\)",
        ),
        (lambda t: t.update(extra=torch.zeros(3)), r"got 1 unexpected \(first: extra \[3\]\)"),
        (
            lambda t: t.update({"out.weight": torch.zeros(2, 9)}),
            r"1 of another shape \(first: out.weight \[2, 9\] instead of \[2, 8\]\)",
        ),
        (
            lambda t: [t.pop("out.bias"), t.pop("out.weight"), t.update(extra=torch.zeros(3))],
            "2 missing.*; 1 unexpected",
        ),
        (
            lambda t: t["out.bias"].fill_(float("nan")),
            "expected finite numbers; got a NaN or infinity in out.bias",
        ),
        (lambda t: t["out.bias"].fill_(float("inf")), "NaN or infinity in out.bias"),
        (
            lambda t: t.update({"out.bias": torch.full((2,), 1e300, dtype=torch.float64)}),
            "NaN or infinity in out.bias",  # as float32 has no such number
        ),
        (
            lambda t: t.update({"out.bias": torch.full((2,), float("nan")).to(torch.float8_e4m3fn)}),
            "NaN or infinity in out.bias",
        ),
        (
            lambda t: t.update({"out.bias": torch.ones(2, dtype=torch.complex64)}),
            "expected real numbers in out.bias; got torch.complex64",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(stored, change, words):
    path, _ = stored
    rewrite(path, change)
    denoiser = small_denoiser(seed=2)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    with pytest.raises(InputError, match=words) as caught:
        load_weights(denoiser, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())


def test_numbers_of_another_width_are_taken(stored):
    path, expected = stored
    rewrite(path, lambda t: t.update({"out.bias": t["out.bias"].to(torch.float8_e5m2)}))
    denoiser = small_denoiser(seed=2)
    load_weights(denoiser, path)
    assert torch.allclose(denoiser.network.state_dict()["out.bias"], expected["out.bias"], rtol=0.2)


def test_missing_damaged_and_pickled_files_are_refused(stored, tmp_path):
    path, _ = stored
    whole = path.read_bytes()
    hostile = pickle.dumps({"out.weight": torch.zeros(2)})
    for content in (b"", whole[:7], whole[:-1], whole[:100], b"\xff" * 64, hostile):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"expected a whole \.safetensors file"):
            load_weights(small_denoiser(), path)
    with pytest.raises(InputError, match="no such file"):
        load_weights(small_denoiser(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="writable folder"):
        save_weights(small_denoiser(), tmp_path / "missing" / "w.safetensors")
