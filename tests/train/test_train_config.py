from __future__ import annotations

import dataclasses

import pytest

from ntkdiag.errors import InputError
from ntkdiag.train import PRESETS, Preset, TrainConfig


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve_and_can_be_overridden(name):
    config = TrainConfig.preset(name, steps=7, seed=9)
    assert (config.steps, config.seed) == (7, 9)
    assert config.batch == Preset.named(name).training["batch"]


def test_a_config_survives_a_round_trip_through_a_mapping():
    config = TrainConfig.preset("mixture", gradient_clip=None)
    assert TrainConfig.from_dict(dataclasses.asdict(config)) == config


def test_warm_up_rises_linearly_and_stays():
    config = TrainConfig(learning_rate=0.8, warmup=4)
    assert [config.rate(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert TrainConfig(learning_rate=0.8, warmup=0).rate(0) == 0.8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps: expected an integer of at least 1; got 0"),
        ({"batch": 1.5}, "batch: expected an integer"),
        ({"seed": -1}, "seed: expected an integer of at least 0"),
        ({"warmup": -1}, "warmup"),
        ({"learning_rate": -1e-3}, "learning_rate: expected a number of at least 0; got -0.001"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate.*got 'fast'"),
        ({"ema_decay": 1.0}, "ema_decay: expected a number of at least 0 and below 1; got 1.0"),
        ({"beta2": 1.0}, "beta2"),
        ({"ema_width": 0.2888}, "ema_width"),
        ({"ema_width": 0.0}, "ema_width"),
        ({"keep_checkpoints": 0}, "keep_checkpoints: expected an integer of at least 1"),
        ({"sampling": "tabel"}, "sampling: expected one of density, table; got 'tabel'"),
        ({"stratified": 1}, "stratified: expected true or false"),
        (
            {"gradient_clip": 0.0},
            r"gradient_clip \(None for no clipping\): expected a number above 0; got 0.0",
        ),
        ({"gradient_clip": float("inf")}, "gradient_clip"),
        ({"optimizer": "adam"}, "optimizer: expected one of adamw, sgd, muon; got 'adam'"),
        ({"align": -1.0}, "align: expected a number of at least 0; got -1.0"),
        ({"accumulate": 0}, "accumulate: expected an integer of at least 1"),
        ({"accumulate": 3, "batch": 2}, "accumulate: expected at most batch, 2 samples; got 3"),
        ({"mixed_precision": "fp16"}, "mixed_precision: expected one of no, bf16; got .fp16"),
        ({"align_module": 3}, "align_module: expected the name of a module; got int"),
        ({"lerning_rate": 1.0}, "training setting.*Did you mean 'learning_rate'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        TrainConfig.from_dict(settings)


def test_unknown_preset_is_refused():
    with pytest.raises(
        InputError,
        match=r"preset: expected one of digits, fashion, fashion_small, .*, latents, mixture.*Did you mean 'digits'\?",
    ):
        TrainConfig.preset("digit")
