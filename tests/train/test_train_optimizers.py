"""The choice of an optimizer: what each one does to the parameters, and that an interruption leaves no trace."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from train_cases import QUICK, small_data, small_denoiser

from ntkdiag.errors import InputError
from ntkdiag.process.buckets import Buckets
from ntkdiag.train import train
from ntkdiag.train.checkpoints.checkpoint import read_checkpoint
from ntkdiag.train.loss import denoising_losses, draw_batch
from ntkdiag.train.optimizers import memory, optimizers_of, remember
from ntkdiag.train.state import TrainState


def test_sgd_with_momentum_is_its_formula():
    config = dataclasses.replace(QUICK, optimizer="sgd", beta1=0.8, weight_decay=0.1, gradient_clip=None)
    plain, trained = small_denoiser(dtype=torch.float64), small_denoiser(dtype=torch.float64)
    generators = TrainState(copy.deepcopy(plain), config, Buckets.uniform(-4, 4, 3)).generators
    speed = [torch.zeros_like(p) for p in plain.parameters()]
    for step in range(config.steps):
        batch = draw_batch(small_data().train.double(), plain.schedule, config.batch, generators)
        found = torch.autograd.grad(denoising_losses(plain, batch).mean(), list(plain.parameters()))
        for p, v, g in zip(plain.parameters(), speed, found, strict=True):
            v.mul_(0.8).add_(g + 0.1 * p.detach())
            p.data.sub_(config.rate(step) * v)
    train(trained, small_data(), None, config)
    for ours, wanted in zip(trained.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


def test_muon_moves_matrices_by_nearly_orthogonal_steps_and_the_rest_by_adamw():
    pytest.importorskip("torch", minversion="2.9")
    config = dataclasses.replace(QUICK, optimizer="muon", steps=1, warmup=0)
    before, denoiser = small_denoiser(), small_denoiser()
    train(denoiser, small_data(), None, config)
    for old, new in zip(before.parameters(), denoiser.parameters(), strict=True):
        step = (new - old).detach()
        if step.ndim == 2:
            scale = config.learning_rate * 0.2 * max(step.shape) ** 0.5
            values = torch.linalg.svdvals(step) / scale
            assert values.median() > 0.5 and values.max() < 1.4  # what five steps of Newton and Schulz leave
        else:  # Adam's first step is the rate times the sign
            torch.testing.assert_close(
                step.abs(), torch.full_like(step, config.learning_rate), rtol=1e-3, atol=0
            )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("align", [0.0, 0.5])
def test_a_resumed_run_ends_as_the_straight_one(tmp_path, monkeypatch, optimizer, align):
    monkeypatch.setattr("ntkdiag.train.alignment.encoder.STEPS", 10)
    config = dataclasses.replace(QUICK, optimizer=optimizer, align=align)
    train(small_denoiser(), small_data(), None, config, out=tmp_path / "straight")
    half = dataclasses.replace(config, steps=7)
    train(small_denoiser(), small_data(), None, half, out=tmp_path / "two")
    train(small_denoiser(), small_data(), None, config, out=tmp_path / "two", resume=True)
    wanted, found = (read_checkpoint(tmp_path / name)[1] for name in ("straight", "two"))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_a_run_is_not_resumed_with_another_optimizer(tmp_path):
    train(small_denoiser(), small_data(), None, dataclasses.replace(QUICK, steps=6), out=tmp_path / "run")
    config = dataclasses.replace(QUICK, optimizer="sgd")
    with pytest.raises(
        InputError, match=r"optimizer of the run to resume.*expected adamw, as before; got sgd"
    ):
        train(small_denoiser(), small_data(), None, config, out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_memory_that_does_not_fit_is_refused_whole(optimizer):
    config = dataclasses.replace(QUICK, optimizer=optimizer)
    named = dict(small_denoiser().named_parameters())
    optimizers = optimizers_of(config, named.values())
    assert memory(optimizers, named) == {}
    sum(p.square().sum() for p in named.values()).backward()
    for one in optimizers:
        one.step()
    stored = memory(optimizers, named)
    assert {name.partition("/")[0] for name in stored} == set(named)
    kept = {name: value.clone() for name, value in stored.items()}
    first = next(iter(stored))
    for wrong in (
        {**stored, first: torch.full_like(stored[first], torch.nan)},
        {**stored, first: torch.zeros(99)},
        {**stored, "nobody/exp_avg": torch.zeros(1)},
    ):
        with pytest.raises(InputError, match="here"):
            remember(optimizers, named, wrong, "here")
    assert all(torch.equal(value, kept[name]) for name, value in memory(optimizers, named).items())


def test_muon_is_refused_where_torch_has_none(monkeypatch, tmp_path):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    config = dataclasses.replace(QUICK, optimizer="muon")
    with pytest.raises(InputError, match=r"optimizer 'muon': expected torch 2\.9 or newer.*; got 2"):
        train(small_denoiser(), small_data(), None, config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
