"""Features that are aligned with an encoder of clean samples: the loss, what it moves, and what it leaves alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from train_cases import QUICK, small_data, small_denoiser

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.train import TrainConfig, train
from ntkdiag.train.alignment.aligner import Aligner, fresh_aligner, stored_aligner
from ntkdiag.train.alignment.encoder import Encoder, trained_encoder
from ntkdiag.train.checkpoints.checkpoint import read_checkpoint
from ntkdiag.train.loss import Generators, denoising_losses, draw_batch
from ntkdiag.trust.optimizers import start_of
from ntkdiag.trust.real_steps import displacements, weighted_loss

ALIGNED = dataclasses.replace(QUICK, align=0.5)


@pytest.fixture
def short(monkeypatch):
    """An encoder that learns in fewer steps, where it need not be good."""
    monkeypatch.setattr("ntkdiag.train.alignment.encoder.STEPS", 10)


def batch_of(denoiser, data, count=6):
    generators = Generators(*(torch.Generator().manual_seed(k) for k in range(3)))
    return draw_batch(data.train, denoiser.schedule, count, generators)


def test_the_loss_is_one_minus_the_cosine_of_the_mapped_features():
    denoiser, data = small_denoiser(), small_data()
    batch = batch_of(denoiser, data)
    aligner = fresh_aligner(denoiser, ALIGNED, batch)
    losses, found = aligner.losses(denoiser, batch)
    torch.testing.assert_close(losses, denoising_losses(denoiser, batch))
    x, _ = denoiser.training_pair(batch.x0, batch.epsilon, batch.log_snr)
    taken = []
    handle = denoiser.network.layers[0].register_forward_hook(lambda part, given, out: taken.append(out))
    denoiser(x, batch.log_snr)
    handle.remove()
    mapped = taken[0].double() @ aligner.projection.weight.double().T + aligner.projection.bias.double()
    wanted = aligner.encoder(batch.x0).double()
    cosine = (mapped * wanted).sum(1) / (mapped.norm(dim=1) * wanted.norm(dim=1))
    assert found.item() == pytest.approx((1 - cosine).mean().item(), rel=1e-5)
    assert not denoiser.network.layers[0]._forward_hooks


def test_reported_losses_are_those_of_denoising_alone(short):
    every = dataclasses.replace(QUICK, log_every=1)
    plain = train(small_denoiser(), small_data(), None, every).history
    found = train(small_denoiser(), small_data(), None, dataclasses.replace(every, align=5.0)).history
    same = [name for name in plain if name not in ("seconds", "grad_norm")]
    assert found[same].iloc[0].equals(plain[same].iloc[0])  # the same draws, before the first update
    assert found["grad_norm"][0] != plain["grad_norm"][0]
    assert (found["weighted_loss"] == found["loss"]).all() and (found["loss"][1:] != plain["loss"][1:]).all()
    assert found["align_loss"].between(0, 2).all() and "align_loss" not in plain


def test_the_average_has_the_networks_own_tensors_and_the_encoder_stays(tmp_path, short):
    result = train(small_denoiser(), small_data(), None, ALIGNED, out=tmp_path / "run")
    assert result.denoiser.network.state_dict().keys() == small_denoiser().network.state_dict().keys()
    _, tensors = read_checkpoint(tmp_path / "run")
    encoder = trained_encoder(small_data()).state_dict()
    assert all(torch.equal(tensors[f"align.encoder.{name}"], value) for name, value in encoder.items())
    fresh = Aligner(2, 8, "layers.0", ALIGNED.seed)
    assert not torch.equal(tensors["align.projection.weight"], fresh.projection.weight)


def test_training_aligns_the_chosen_module_of_a_transformer():
    data = nd.data.load("digits")
    network = nd.models.build("dit", data.shape, width=8, depth=2, heads=2)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    config = TrainConfig(
        steps=60, batch=32, learning_rate=5e-3, warmup=0, log_every=20, align=1.0, align_module="blocks.1"
    )
    losses = train(denoiser, data, None, config).history["align_loss"]
    assert losses.iloc[0] < 1.05 and losses.iloc[-1] < 0.8 * losses.iloc[0]


def test_the_encoder_learns_the_classes_and_equal_data_gives_equal_bytes(monkeypatch):
    data = nd.data.load("digits")
    before = torch.get_rng_state()
    encoder = trained_encoder(data)
    assert torch.equal(torch.get_rng_state(), before)
    assert float(encoder(data.train).mean(0).abs().max()) < 1e-5
    monkeypatch.setattr("ntkdiag.train.alignment.encoder.STEPS", 10)
    few = dataclasses.replace(data, train=data.train[:64], labels=data.labels[:64])
    one, two = (trained_encoder(few).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    unlike = trained_encoder(dataclasses.replace(few, labels=None)).state_dict()
    alone = trained_encoder(dataclasses.replace(few, labels=torch.full((64,), 7))).state_dict()
    assert not torch.equal(one["first.weight"], unlike["first.weight"])
    assert all(
        torch.equal(unlike[name], alone[name]) for name in unlike
    )  # one class has nothing to tell apart
    means = torch.stack([encoder(data.train[data.labels == k]).mean(0) for k in range(10)])
    nearest = torch.cdist(encoder(data.held_out), means).argmin(1)
    raw = torch.stack([data.train[data.labels == k].flatten(1).mean(0) for k in range(10)])
    by_pixels = torch.cdist(data.held_out.flatten(1), raw).argmin(1)
    right, plain = ((one == data.held_out_labels).float().mean() for one in (nearest, by_pixels))
    assert right > 0.95 > plain


@pytest.mark.parametrize("module", ["nowhere", ""])
def test_a_module_that_is_not_there_is_refused(module):
    config = dataclasses.replace(ALIGNED, align_module=module)
    with pytest.raises(InputError, match="align_module: expected the name of a module, such as condition"):
        train(small_denoiser(), small_data(), None, config)


def test_networks_without_blocks_or_rows_are_refused():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = torch.nn.Linear(2, 2)

        def forward(self, x, log_snr):
            return self.inside(x.reshape(1, -1, 2)).reshape(x.shape)

    denoiser = nd.Denoiser(Odd(), nd.schedules.cosine(), "v", call="log_snr")
    with pytest.raises(InputError, match="got none, and the network has no list of blocks"):
        train(denoiser, small_data(), None, ALIGNED)
    with pytest.raises(
        InputError, match=r"output of module 'inside': expected a tensor \[2, ...\]; got shape"
    ):
        train(denoiser, small_data(), None, dataclasses.replace(ALIGNED, align_module="inside"))


def test_real_steps_of_a_run_that_aligns_are_those_of_both_losses(tmp_path, short):
    result = train(small_denoiser(), small_data(), None, ALIGNED, out=tmp_path / "run")
    start = start_of(result.denoiser, tmp_path / "run", learning_rate=1, batch=None)
    batch = batch_of(start.denoiser, small_data())
    aligner, weight = start.aligner
    losses, alignment = aligner.losses(start.denoiser, batch)
    assert weight == 0.5 and alignment.item() > 0
    total = weighted_loss(start, batch, None)
    torch.testing.assert_close(total, losses.mean() + 0.5 * alignment)
    held = {id(p) for one in start.optimizers for group in one.param_groups for p in group["params"]}
    assert held == {id(p) for p in start.learned} and len(start.learned) > len(
        list(start.denoiser.parameters())
    )
    kept = [p.clone() for p in start.learned]
    moved = list(displacements(start, small_data(), None, 2, 0, 0))
    assert len(moved[0]) == len(list(start.denoiser.parameters()))
    assert all(
        torch.equal(a, b) for a, b in zip(start.learned, kept, strict=True)
    )  # it was a copy that moved


def test_a_checkpoint_without_the_aligners_tensors_is_refused():
    full = Aligner(2, 8, "layers.0", 0).state_dict()
    assert isinstance(stored_aligner(small_denoiser(), ALIGNED, full, "here").encoder, Encoder)
    for name in ("projection.weight", "encoder.first.weight"):
        for wrong in ({k: v for k, v in full.items() if k != name}, {**full, name: torch.zeros(3)}):
            with pytest.raises(InputError, match=r"here: align: expected matrices encoder\.first.weight"):
                stored_aligner(small_denoiser(), ALIGNED, wrong, "here")
