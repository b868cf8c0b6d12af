"""Training and sampling with conditions: labels stay with their samples, some are dropped, and guidance by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ntkdiag as nd
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.train import TrainConfig, bucket_losses, sample, train
from ntkdiag.train.checkpoints.checkpoint import read_manifest
from ntkdiag.train.loss import Generators, Labelled, draw_batch

CLASSES = 4
CENTERS = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])


def clusters(count: int = 256, seed: int = 0) -> Data:
    """A class is a place."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    x = CENTERS[labels] + 0.1 * torch.randn(count, 2, generator=generator)
    half = count // 2
    return Data("clusters", x[:half], x[half:], labels=labels[:half], held_out_labels=labels[half:])


def labelled(seed: int = 0, **sizes: Any) -> Denoiser:
    network = nd.models.build("mlp", (2,), seed=seed, classes=CLASSES, **{"width": 16, "depth": 1, **sizes})
    return Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")


def generators(seed: int = 0) -> Generators:
    return Generators(*(torch.Generator().manual_seed(seed + k) for k in range(4)))


# --- batches


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_batch_keeps_labels_and_drops_some(dropout: float) -> None:
    data, count = clusters(), 4000
    null = {"label": torch.tensor([CLASSES])}
    one = Labelled(data.conditions, null, dropout)
    drop = generators() if dropout else generators()._replace(drop=None)
    batch = draw_batch(data.train, nd.schedules.cosine(), count, drop, one)
    plain = draw_batch(
        data.train,
        nd.schedules.cosine(),
        count,
        drop._replace(data=generators().data, noise=generators().noise, level=generators().level),
    )
    for name in ("x0", "epsilon", "log_snr"):  # what else is drawn does not depend on conditions
        assert torch.equal(getattr(batch, name), getattr(plain, name))
    labels = batch.cond["label"]
    kept = labels < CLASSES
    own = (batch.x0[:, None] - CENTERS).norm(dim=2).argmin(1)
    assert torch.equal(labels[kept], own[kept])
    assert abs(float((~kept).double().mean()) - dropout) < 4 * (dropout / count) ** 0.5 + 1e-12


def test_tensors_of_any_shape_are_dropped_row_by_row() -> None:
    x = torch.zeros(64, 2)
    cond = {"text": torch.ones(64, 3, 5), "mask": torch.ones(64, 3).bool()}
    null = {"text": torch.full((1, 3, 5), 7.0), "mask": torch.zeros(1, 3).bool()}
    batch = draw_batch(x, nd.schedules.cosine(), 200, generators(), Labelled(cond, null, 0.5))
    dropped = batch.cond["text"][:, 0, 0] == 7
    assert 0 < int(dropped.sum()) < 200
    assert bool((batch.cond["text"][dropped] == 7).all()) and bool((batch.cond["text"][~dropped] == 1).all())
    assert torch.equal(batch.cond["mask"].any(1), ~dropped)


# --- training


def test_labels_help() -> None:
    """The place of a cluster is what a label says: at high noise nothing else says it."""
    settings = TrainConfig(steps=200, batch=64, learning_rate=1e-2, warmup=10, ema_decay=0.9, log_every=200)
    buckets = nd.Buckets.uniform(-6, -2, 2)
    data = clusters()
    known = train(labelled(), data, None, settings).denoiser
    own = bucket_losses(known, data, buckets).per_sample.mean()
    wrong = Data(
        "wrong", data.train, data.held_out, labels=data.labels, held_out_labels=(data.held_out_labels + 1) % 4
    )
    assert own < 0.5 * bucket_losses(known, wrong, buckets).per_sample.mean()
    draws = PairedDraws.draw(data.held_out, 128, 0, cond=data.held_out_conditions)
    torch.testing.assert_close(bucket_losses(known, draws, buckets, batch=50).per_sample.mean(), own)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_resumed_run_is_the_same_to_the_byte(dropout: float, tmp_path: Path) -> None:
    settings = {"batch": 16, "log_every": 5, "condition_dropout": dropout}
    whole = train(labelled(), clusters(), None, TrainConfig(steps=20, **settings))
    train(labelled(), clusters(), None, TrainConfig(steps=12, **settings), out=tmp_path / "run")
    rest = train(
        labelled(), clusters(), None, TrainConfig(steps=20, **settings), out=tmp_path / "run", resume=True
    )
    for (name, a), (_, b) in zip(
        whole.denoiser.state_dict().items(), rest.denoiser.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_a_run_is_not_resumed_with_other_labels_or_another_dropout(tmp_path: Path) -> None:
    data, settings = clusters(), TrainConfig(steps=2, batch=8)
    train(labelled(), data, None, settings, out=tmp_path / "run")
    assert read_manifest(tmp_path / "run").problem["conditions"]["label"]["dtype"] == "int64"
    with pytest.raises(InputError, match="conditions of the run to resume"):
        train(labelled(), data.at_condition(label=1), None, settings, out=tmp_path / "run", resume=True)
    other = TrainConfig(steps=2, batch=8, condition_dropout=0.1)
    with pytest.raises(
        InputError, match=r"condition_dropout of the run .* expected 0\.0, as before; got 0\.1"
    ):
        train(labelled(), data, None, other, out=tmp_path / "run", resume=True)


def test_what_cannot_be_trained_is_refused() -> None:
    settings = TrainConfig(steps=1, condition_dropout=0.1)
    plain = Denoiser(nd.models.build("mlp", (2,), width=8), nd.schedules.cosine(), "v", call="log_snr")
    with pytest.raises(
        InputError, match="condition_dropout: expected 0 for a network that takes no conditions"
    ):
        train(plain, clusters(), None, settings)
    unknown = Denoiser(nn.Linear(2, 2), nd.schedules.cosine(), "v", conditions={"label": "y"})
    with pytest.raises(InputError, match="null condition: expected what stands for no label"):
        train(unknown, clusters(), None, settings)
    with pytest.raises(InputError, match="conditions of the network: expected label; got none"):
        train(labelled(), clusters().train, None, TrainConfig(steps=1))
    with pytest.raises(InputError, match="condition_dropout"):
        TrainConfig(condition_dropout=1.0)


# --- sampling


class Affine(nn.Module):
    """f = a x + b[label] + c: guidance of it has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.b = nn.Embedding(CLASSES + 1, 2).double()
        with torch.no_grad():
            self.b.weight.copy_(torch.randn(CLASSES + 1, 2, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor, log_snr: Tensor, y: Tensor) -> Tensor:
        return self.a * x + self.b(y)


@pytest.mark.parametrize("target", ["v", "epsilon", "x0"])
@pytest.mark.parametrize("w", [0.0, 1.0, 2.5])
def test_guidance_is_the_affine_combination_of_two_predictions(target: str, w: float) -> None:
    """For f = a x + b[y] guidance is the network with b = b[null] + w (b[y] − b[null])."""
    network = Affine()
    cosine = nd.schedules.cosine()
    denoiser = Denoiser(
        network, cosine, target, call="log_snr", conditions={"label": "y"}, null={"label": CLASSES}
    )
    labels = torch.tensor([0, 1, 2, 3, 1])
    found = sample(denoiser, 5, (2,), steps=4, cond={"label": labels}, guidance=w, log_snr_range=(-4, 4))
    null = network.b.weight[CLASSES]
    shift = (null + w * (network.b(labels) - null)).detach()
    by_hand = Denoiser(network, cosine, target, call=lambda n, x, t, c: n.a * x + shift)
    torch.testing.assert_close(
        found, sample(by_hand, 5, (2,), steps=4, log_snr_range=(-4, 4)), rtol=1e-9, atol=1e-9
    )
    if w == 1.0:
        torch.testing.assert_close(
            found, sample(denoiser, 5, (2,), steps=4, cond=labels, log_snr_range=(-4, 4))
        )


def test_each_sample_has_its_own_condition_in_every_batch() -> None:
    denoiser, labels = labelled(), torch.arange(7) % CLASSES
    one = sample(denoiser, 7, (2,), steps=2, cond={"label": labels})
    parts = sample(denoiser, 7, (2,), steps=2, cond=labels, batch=3)
    torch.testing.assert_close(one, parts)
    assert not torch.allclose(one, sample(denoiser, 7, (2,), steps=2))
    null = torch.full((7,), CLASSES)
    torch.testing.assert_close(
        sample(denoiser, 7, (2,), steps=2), sample(denoiser, 7, (2,), steps=2, cond=null)
    )


def test_a_trained_network_samples_the_class_it_is_asked_for() -> None:
    settings = TrainConfig(
        steps=600, batch=64, learning_rate=1e-2, warmup=10, ema_decay=0.95, condition_dropout=0.2
    )
    denoiser = train(labelled(width=32, depth=2), clusters(512), None, settings).denoiser
    for label in range(CLASSES):
        drawn = sample(denoiser, 32, (2,), steps=8, cond={"label": torch.full((32,), label)}, guidance=1.5)
        nearest = (drawn[:, None] - CENTERS).norm(dim=2).argmin(1)
        assert float((nearest == label).double().mean()) > 0.9
    free = sample(denoiser, 64, (2,), steps=8)
    assert len((free[:, None] - CENTERS).norm(dim=2).argmin(1).unique()) == CLASSES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cond": {"label": torch.zeros(4).long()}}, r"cond, 'label': expected 3 rows"),
        ({"cond": {"text": torch.zeros(3)}}, "expected label; got text"),
        ({"guidance": float("nan"), "cond": {"label": torch.zeros(3).long()}}, "guidance"),
        ({"guidance": "2"}, "guidance"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        sample(labelled(), 3, (2,), steps=1, **options)


def test_guidance_needs_conditions() -> None:
    plain = Denoiser(nd.models.build("mlp", (2,), width=8), nd.schedules.cosine(), "v", call="log_snr")
    with pytest.raises(
        InputError, match="guidance: expected a network with conditions to guide by; got none"
    ):
        sample(plain, 3, (2,), steps=1, guidance=2.0)
    with pytest.raises(InputError, match="expected none, since the network takes none; got text"):
        sample(plain, 3, (2,), steps=1, cond={"text": torch.zeros(3, 1)})
