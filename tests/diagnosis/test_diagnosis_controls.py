"""Controls: fresh networks of the same kind, their names, and what happens to one that starts at zero."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import ntkdiag as nd
from ntkdiag.diagnosis import fresh_controls
from ntkdiag.diagnosis.controls import control_name, controls_of, shown_references
from ntkdiag.diagnosis.zero_start import wake, zero_last_layer
from ntkdiag.errors import InputError

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SMALL = {"width": 8, "depth": 1, "heads": 2, "frequencies": 4}


def dit(seed: int = 0, zero: bool = False) -> nd.Denoiser:
    network = nd.models.build("dit", (1, 8, 8), seed=seed, zero_init=zero, **SMALL)
    return nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")


def test_controls_are_named_and_ordered() -> None:
    names = [control_name(place) for place in range(11)]
    assert names[:3] == ["untrained", "untrained 2", "untrained 3"]
    references = dict.fromkeys(["early", *reversed(names), "untrained x", "untrained2"], 0)
    assert list(controls_of(references)) == names
    assert list(shown_references(references)) == ["early", "untrained", "untrained x", "untrained2"]


def test_fresh_networks_differ_from_each_other_and_from_the_network() -> None:
    made, woken = fresh_controls(dit, dit(9), IMAGES, count=3, seed=4)
    assert list(made) == ["untrained", "untrained 2", "untrained 3"] and woken == ()
    for place, one in enumerate(made.values()):
        assert torch.equal(one.network.out.weight, dit(4 + place).network.out.weight)


def test_controls_end_where_weights_repeat() -> None:
    assert fresh_controls(lambda seed: dit(0), dit(0), IMAGES) == ({}, ())
    assert list(fresh_controls(lambda seed: dit(0), dit(1), IMAGES)[0]) == ["untrained"]


def test_a_seed_that_gives_the_networks_own_weights_is_left_out() -> None:
    for own in (4, 5):
        made, _ = fresh_controls(dit, dit(own), IMAGES, count=2, seed=4)
        seeds = [seed for seed in (4, 5, 6) if seed != own]
        for seed, one in zip(seeds, made.values(), strict=True):
            assert torch.equal(one.network.out.weight, dit(seed).network.out.weight)
        assert list(made) == ["untrained", "untrained 2"]
    zero = dit(4, zero=True)  # the network itself is not woken
    made, _ = fresh_controls(lambda seed: dit(seed, zero=True), zero, IMAGES, count=1, seed=4)
    assert torch.equal(made["untrained"].network.embed.weight, dit(5, zero=True).network.embed.weight)


def test_a_zero_start_is_recognised_by_what_has_a_gradient() -> None:
    assert zero_last_layer(dit(zero=True), IMAGES) == ("out.weight",)
    assert zero_last_layer(dit(), IMAGES) == ()
    # Zero weights that hide nothing are no zero start.
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Unflatten(1, (1, 8, 8)))
    whole = nd.Denoiser(network, nd.schedules.cosine(), "v", call=lambda net, x, level, cond: net(x))
    with torch.no_grad():
        network[1].weight.zero_()
    assert zero_last_layer(whole, IMAGES) == ()
    with torch.no_grad():
        network[2].weight.zero_()
    assert zero_last_layer(whole, IMAGES) == ()  # its bias is not zero, nor is that of the first layer seen
    with torch.no_grad():
        network[2].bias.zero_()
    assert zero_last_layer(whole, IMAGES) == ("2.weight",)


def test_an_awake_control_has_a_kernel_of_all_its_layers() -> None:
    asleep = dit(3, zero=True)
    awake = copy.deepcopy(asleep)
    wake(awake.network, ("out.weight",), seed=3)
    weight = awake.network.out.weight.detach()
    assert weight.std() == pytest.approx(1 / weight.shape[1] ** 0.5, rel=0.3)
    assert zero_last_layer(awake, IMAGES) == ()
    again = copy.deepcopy(asleep)
    wake(again.network, ("out.weight",), seed=3)
    assert torch.equal(again.network.out.weight, awake.network.out.weight)
    made, woken = fresh_controls(lambda seed: dit(seed, zero=True), dit(9), IMAGES, count=2)
    assert woken == ("out.weight",)
    assert not torch.equal(made["untrained"].network.out.weight, made["untrained 2"].network.out.weight)


def test_a_network_at_its_zero_start_is_said_to_be_there_and_left_as_it_is() -> None:
    data = nd.data.Data("images", train=IMAGES, held_out=IMAGES)
    network = dit(0, zero=True)
    found = nd.measure(network, data, nd.Buckets.uniform(-4, 4, 2), samples=4, probes=1)
    assert found.meta["network"]["zero_start"] == ["out.weight"]
    assert not network.network.out.weight.any()
    assert (
        nd.measure(dit(), data, nd.Buckets.uniform(-4, 4, 2), samples=4, probes=1).meta["network"][
            "zero_start"
        ]
        == []
    )


def test_something_else_than_a_denoiser_is_refused() -> None:
    with pytest.raises(InputError, match=r"a fresh network: expected an ntkdiag\.Denoiser"):
        fresh_controls(lambda seed: dit(seed).network, dit(9), IMAGES)  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match="controls"):
        fresh_controls(dit, dit(9), IMAGES, count=-1)
