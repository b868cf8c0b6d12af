"""Activations: planted collapses are found, absent ones are not, and the controls say what is no collapse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from trust_cases import small_data, with_x_alone

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.trust.activations import activations, chosen_modules
from ntkdiag.trust.features import probe, rankme

LEVELS = (-9.0, -3.0, 3.0, 9.0)
RANDOM = np.random.default_rng(0)


class Bottleneck(nn.Module):
    """Wide features of full rank, of which a projection keeps `rank` directions, at noisy levels only or at all of them."""

    def __init__(self, rank, everywhere):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.lift = nn.Linear(16, 64)
        with torch.no_grad():
            self.lift.weight.copy_(torch.randn(64, 16, generator=generator) / 4)
        self.squeeze = nn.Identity()
        self.register_buffer("kept", (torch.arange(64) < rank).float())
        self.out = nn.Linear(64, 16)
        self.everywhere = everywhere

    def forward(self, x, log_snr):
        wide = torch.tanh(3 * self.lift(x))
        small = self.everywhere | (log_snr < -3)[:, None]
        return self.out(self.squeeze(torch.where(small, wide * self.kept, wide)))


def bottleneck(rank=2, everywhere=False):
    network = Bottleneck(rank, torch.tensor(everywhere))
    return nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")


def gaussian_data():
    generator = torch.Generator().manual_seed(0)
    return nd.data.as_data(torch.randn(200, 16, generator=generator))


def of(found, network, module):
    return found.table[(found.table["network"] == network) & (found.table["module"] == module)]


def test_a_planted_bottleneck_is_found_where_it_is():
    found = nd.trust.features(bottleneck(), gaussian_data(), ["lift", "squeeze"], buckets=LEVELS, samples=64)
    rank = of(found, "trained", "squeeze")["centred_effective_rank"].to_numpy()
    assert rank[0] <= 2.0 and rank[1:].min() > 10
    words = found.ends.set_index(["network", "module", "end"])["word"]
    assert (
        words["trained", "squeeze", "noisy"] == "falls" and words["trained", "squeeze", "clean"] == "absent"
    )
    assert words["trained", "lift", "noisy"] != "falls" and words["input", "", "noisy"] != "falls"
    assert "At the noisy end 1 of 2 modules loses rank against the middle (squeeze)." in found.text
    assert (
        "At the clean end no module is found to lose rank against the middle (1 cannot say, 1 absent)"
        in found.text
    )


def test_a_bottleneck_at_every_level_shows_in_the_rank_and_not_at_an_end():
    found = nd.trust.features(bottleneck(3, True), gaussian_data(), "squeeze", buckets=LEVELS, samples=64)
    own = of(found, "trained", "squeeze")
    assert (
        (own["centred_effective_rank"] <= 3).all()
        and (own["rankme"] <= 3.01).all()
        and (own["width"] == 64).all()
    )
    assert (of(found, "input", "")["centred_effective_rank"] > 10).all()
    assert (found.ends["word"] != "falls").all()


def test_a_fresh_network_is_the_control():
    found = nd.trust.features(
        bottleneck(), gaussian_data(), "squeeze", buckets=LEVELS, samples=64, untrained=bottleneck(64)
    )
    assert of(found, "untrained", "squeeze")["centred_effective_rank"].min() > 10
    assert set(found.table["network"]) == {"trained", "untrained", "input"}
    collapsed = nd.trust.features(
        bottleneck(), gaussian_data(), "squeeze", buckets=LEVELS, samples=64, untrained=bottleneck()
    )
    assert "as happens in the untrained network" in collapsed.text


def test_alignment_with_the_clean_input_and_between_levels():
    linear = with_x_alone(nn.Sequential(nn.Linear(2, 2)))
    found = nd.trust.features(linear, small_data(), buckets=LEVELS, samples=64)
    entry = of(found, "input", "")["cka_clean"].to_numpy()
    assert entry[-1] > 0.99 and entry[0] < 0.2  # clean at log-SNR 6, noise at -6
    same = found.between["log_snr_a"] == found.between["log_snr_b"]
    assert found.between.loc[same, "cka"].to_numpy() == pytest.approx(1.0)
    near = found.between.set_index(["network", "log_snr_a", "log_snr_b"])["cka"]
    low, middle, high = sorted(found.between["log_snr_a"].unique())
    assert near["input", high, middle] > near["input", high, low]


def test_rankme_is_on_singular_values():
    features = RANDOM.normal(size=(20, 6))
    values = np.linalg.svd(features, compute_uv=False)
    shares = values / values.sum()
    assert rankme(features @ features.T) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert rankme(np.diag([9.0, 1.0, 0.0])) == pytest.approx(
        np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    )


def test_the_probe_reads_what_is_there_and_nothing_else():
    labels = np.repeat([0, 1, 2], 30)
    places = np.array([[0, 0], [4, 0], [0, 4]])[labels] + RANDOM.normal(size=(90, 2))
    accuracy, error = probe(places @ places.T, labels)
    assert accuracy > 0.9 and 0 < error < 0.05
    noise = RANDOM.normal(size=(90, 2))
    accuracy, _ = probe(noise @ noise.T, labels)
    assert accuracy < 0.55
    assert np.isnan(probe(places @ places.T, np.zeros(90, int))[0])
    assert probe(np.ones((90, 90)), labels)[0] == pytest.approx(1 / 3)


def test_labels_are_probed_and_not_where_the_network_is_given_them():
    digits = nd.data.load("digits")
    plain = nd.Denoiser(
        nd.models.build("mlp", digits.shape, width=16, depth=1), nd.schedules.cosine(), "v", call="log_snr"
    )
    found = nd.trust.features(plain, digits, "layers.*", buckets=(-9, 0, 9), samples=128)
    entry = of(found, "input", "")["probe"].to_numpy()
    assert entry[0] < 0.4 < 0.7 < entry[-1]
    given = nd.models.build("mlp", digits.shape, width=16, depth=1, classes=10)
    labelled = nd.Denoiser(given, nd.schedules.cosine(), "v", call="log_snr")
    told = nd.trust.features(labelled, digits, "layers.*", buckets=(-9, 0, 9), samples=64)
    assert of(told, "trained", "layers.0")["probe"].isna().all()


def test_patterns_take_the_outermost_modules():
    network = nd.models.build("dit", (1, 8, 8), width=16, depth=2, heads=2)
    assert list(chosen_modules(network, "blocks.*")) == ["blocks.0", "blocks.1"]
    assert {"blocks.0", "blocks.1"} <= set(chosen_modules(network, None))
    with pytest.raises(InputError, match="names of modules, such as"):
        chosen_modules(network, "layer.*")


def test_nothing_is_left_in_the_network_and_errors_pass():
    denoiser = bottleneck()
    modules = chosen_modules(denoiser.network, None)
    x = torch.zeros(5, 16)
    found = activations(denoiser, modules, (x, torch.zeros(5)), batch=2)
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "lift": (5, 64), "squeeze": (5, 64), "out": (5, 16),
    }  # fmt: skip
    with pytest.raises(RuntimeError):
        activations(denoiser, modules, (torch.zeros(5, 3), torch.zeros(5)))
    assert all(not part._forward_hooks for part in denoiser.modules())


def test_parts_that_see_the_noise_level_alone_are_left_out_unless_named():
    digits = nd.data.load("digits")
    network = nd.models.build("dit", digits.shape, width=16, depth=1, heads=2)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    found = nd.trust.features(denoiser, digits, buckets=3, samples=16)
    assert "condition" not in set(found.table["module"]) and "blocks.0" in set(found.table["module"])
    named = nd.trust.features(denoiser, digits, "condition", buckets=3, samples=16)
    assert (of(named, "trained", "condition")["centred_effective_rank"] == 0).all()
