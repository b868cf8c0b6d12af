"""Presets: what the package's files say, and files of others; the cost of a run against counts by hand."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.train import PRESETS, Preset, TrainConfig, training_cost

SHAPES = {
    "digits": (1, 8, 8),
    "fashion": (1, 28, 28),
    "fashion_small": (1, 28, 28),
    "images": (3, 32, 32),
    "latents": (4, 32, 32),
    "mixture": (2,),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_preset_has_settings_a_network_that_fits_its_data_and_a_known_process(name):
    preset = Preset.named(name)
    TrainConfig.from_dict(preset.training)
    with torch.device("meta"):
        network = nd.models.build(preset.network.name, SHAPES[name], **preset.network.options)
    schedule = nd.schedules.named(preset.process.schedule, **preset.process.schedule_options)
    nd.Denoiser(network, schedule, preset.process.target, call="log_snr")
    assert preset.weights == "constant"


def test_fine_tuning_is_settings_alone():
    assert Preset.named("fine_tuning").network is None
    assert TrainConfig.preset("fine_tuning").learning_rate == 1e-5
    assert {*SHAPES, "fine_tuning"} == set(PRESETS)


def test_the_files_of_the_folder_are_the_presets():
    files = Path(nd.train.presets.__file__).parent.glob("*.toml")
    assert sorted(file.stem for file in files) == sorted(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_own_text(name, tmp_path):
    file = tmp_path / "again.toml"
    file.write_text(Preset.named(name).text())
    assert Preset.named(str(file)) == Preset.named(name)


def test_names_and_values_of_every_kind_survive(tmp_path):
    hostile = 'a "quoted" \\ name\n[training]\tü\x7f\x01'
    options = {
        "on": True, "off": False, "nothing": None, "list": [1, 2.5, "x"], "tiny": 1e-300, "not a word": hostile,
        "endless": float("inf"),
    }  # fmt: skip
    preset = Preset.model_validate(
        {
            "network": {"name": hostile, "options": options},
            "data": {"name": "x.npy", "cond": {"text": hostile}},
            "training": {"gradient_clip": None, "steps": 3},
        }
    )
    file = tmp_path / "again.toml"
    file.write_text(preset.text(), newline="")
    assert Preset.named(str(file)) == preset
    assert tomllib.loads(preset.text())["training"] == {"gradient_clip": "none", "steps": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[network", r"mine\.toml: expected TOML; got "),
        ("steps = 3", r"mine\.toml, steps: expected a preset; got Extra inputs"),
        (
            "[network]\nname = 'dit'\n[trainign]\nsteps = 3",
            r"mine\.toml, trainign: expected a preset; got Extra inputs",
        ),
        (
            "[network]\nname = 3",
            r"mine\.toml, network.name: expected a preset; got Input should be a valid string",
        ),
        (
            "[network]\nname = 'dit'\n[data]\nimage_size = 8",
            r"mine\.toml, data.image_size: expected a preset",
        ),
    ],
)
def test_files_that_are_no_presets_are_refused(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        Preset.named("mine.toml")


def test_missing_files_and_unknown_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"mine\.toml"):
        Preset.named("mine.toml")
    with pytest.raises(
        InputError, match=r"preset: expected one of digits, fashion.*Did you mean 'fashion'\?"
    ):
        Preset.named("fashoin")


class Counted(nn.Module):
    """Two linear layers, whose operations are easily counted."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 5, bias=False), nn.Linear(5, 2, bias=False)

    def forward(self, x, log_snr):
        return self.second(torch.tanh(self.first(x)))


def test_the_cost_is_that_of_counting_by_hand():
    """Forward 2·10 for each layer; backward as much for each weight, and once more to get from the second to the first."""
    network = Counted()
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    before = {name: p.clone() for name, p in network.named_parameters()}
    state = torch.get_rng_state()
    data = nd.data.mixture(train=50, held_out=10)
    cost = training_cost(denoiser, data, TrainConfig(steps=7, batch=4))
    assert (cost.parameters, cost.samples, cost.passes) == (20, 28, 28 / 50)
    assert cost.flops == 28 * (2 * 20 + 2 * 20 + 20)
    assert 0 < cost.seconds < 10
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in network.named_parameters())


def test_attention_counts_too():
    """The two products of a softmax attention, [T, T] by head width, are counted in both directions."""

    def flops(depth):
        network = nd.models.build("dit", (1, 8, 8), width=16, depth=depth, heads=2)
        denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        config = TrainConfig(steps=1, batch=1)
        return training_cost(denoiser, torch.zeros(3, 1, 8, 8), config).flops

    tokens, width = 16, 16
    linear = 2 * (
        tokens * (3 + 1 + 4 + 4) * width**2 + 6 * width**2
    )  # qkv, out, both of the MLP, and the modulation
    attention = 2 * 2 * tokens**2 * width
    assert flops(3) - flops(2) == 3 * (linear + attention)


def test_a_network_with_nothing_to_train_has_no_cost():
    network = Counted().requires_grad_(False)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    with pytest.raises(InputError, match="at least one parameter that requires grad"):
        training_cost(denoiser, torch.zeros(3, 2), TrainConfig(steps=1))
