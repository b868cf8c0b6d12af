"""Samples of the network in place of data: what is drawn, and that results and answers say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ntkdiag as nd
from ntkdiag.errors import InputError


def denoiser(classes: int | None = None) -> nd.Denoiser:
    options = {} if classes is None else {"classes": classes}
    return nd.Denoiser(
        nd.models.build("mlp", (2,), width=8, **options), nd.schedules.cosine(), "v", call="log_snr"
    )


def test_they_are_those_of_the_sampler() -> None:
    data = nd.train.own_samples(denoiser(), 9, (2,), steps=3, seed=4)
    assert torch.equal(data.train, nd.train.sample(denoiser(), 9, (2,), steps=3, seed=4))
    assert data.from_network and data.held_out is None and data.labels is None
    assert data.description == "9 samples drawn from the network itself (3 steps, seed 4)"


def test_conditions_stay_with_the_samples() -> None:
    labels = torch.tensor([0, 1, 2, 2])
    data = nd.train.own_samples(denoiser(3), 4, (2,), steps=3, cond={"label": labels}, guidance=2.0)
    drawn = nd.train.sample(denoiser(3), 4, (2,), steps=3, cond={"label": labels}, guidance=2.0)
    assert torch.equal(data.train, drawn) and torch.equal(data.conditions["label"], labels)
    assert data.labels is not None and torch.equal(data.labels, labels) and "guidance 2" in data.description


def test_without_conditions_those_that_stand_for_none() -> None:
    data = nd.train.own_samples(denoiser(3), 4, (2,), steps=3)
    assert data.conditions["label"].tolist() == [3] * 4 and data.labels is None
    assert "under the condition that stands for none" in data.description
    bare = denoiser(3)
    bare.null = {}
    with pytest.raises(InputError, match="null"):
        nd.train.own_samples(bare, 4, (2,))


def test_results_and_answers_say_so(tmp_path: Path) -> None:
    network = denoiser()
    own = nd.train.own_samples(network, 8, (2,), steps=3)
    diagnosis = nd.measure(network, own, 6, samples=8, probes=1)
    assert diagnosis.meta["data"]["from_network"] is True
    diagnosis.save(tmp_path / "kept")
    said = "drawn from the network itself, not from its data"
    assert said in nd.verify(nd.Diagnosis.load(tmp_path / "kept")).text

    given = nd.measure(network, nd.data.as_data(own.train), 6, samples=8, probes=1)
    assert given.meta["data"]["from_network"] is False and said not in nd.verify(given).text
    assert given.summary["trace"].tolist() == diagnosis.summary["trace"].tolist()
