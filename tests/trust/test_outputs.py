"""Predicted x0 beside the best possible one, of networks that are the oracle, or less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.process import target


class Exact(nn.Module):
    """The posterior mean of an oracle in any target; `keep` of its first numbers only."""

    def __init__(self, oracle, schedule, name, keep=2):
        super().__init__()
        self.oracle, self.schedule, self.name, self.keep = oracle, schedule, name, keep
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x, log_snr):
        mean = self.oracle.posterior_mean(x, self.schedule.alpha(log_snr), self.schedule.sigma(log_snr))
        mean = mean * (torch.arange(mean.shape[1]) < self.keep)
        return target.convert(mean, x, log_snr, self.schedule, "x0", self.name)


def exact_denoiser(data, name, keep=2):
    schedule = nd.schedules.cosine()
    network = Exact(data.oracle, schedule, name, keep)
    return nd.Denoiser(
        network, schedule, name, call=lambda network, x, log_snr, cond: network(x.double(), log_snr)
    )


@pytest.mark.parametrize("name", ["x0", "epsilon", "v"])
def test_posterior_mean_outputs_have_no_distortion(name):
    data = nd.data.mixture(train=200, held_out=10)
    found = nd.trust.outputs(exact_denoiser(data, name), data, buckets=5, samples=32)
    assert found.distortion.ends["effect"].abs().max() < 1e-4  # x0 of ε at little signal is known in float32
    assert (found.distortion.ends["word"] == "absent").all()
    assert found.table["loss_over_best"].max() < 1e-6
    assert found.table["output_rank"].to_numpy() == pytest.approx(
        found.table["best_rank"].to_numpy(), rel=1e-4
    )
    assert found.source == "mixture: exact posterior of the mixture"
    assert found.text.count("no difference") == 6


def test_an_output_that_drops_a_dimension_is_distorted():
    data = nd.data.mixture(train=200, held_out=10)
    found = nd.trust.outputs(exact_denoiser(data, "x0", keep=1), data, buckets=5, samples=32)
    rank = found.distortion.ends.set_index(["structure", "end"])["word"]["rank"]
    assert rank["clean"] == "falls"
    assert found.table["output_rank"].to_numpy() == pytest.approx(1.0)
    assert "the network has less" in found.text


def test_without_an_oracle_the_finite_posterior_is_named():
    points = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    network = nd.models.build("mlp", (3,), width=8, depth=1)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    found = nd.trust.outputs(denoiser, points, buckets=3, samples=16)
    assert found.source == "the posterior of the finite training set, which memorises it"
    # at little noise it is the sample itself
    assert found.table["loss_over_best"].isna().tolist() == [False, False, True]
    assert found.table["best_rank"].iloc[-1] == pytest.approx(found.table["data_rank"].iloc[-1], rel=1e-3)


def test_the_diagnosis_holds_the_same_structure():
    data = nd.data.load("mixture")
    network = nd.models.build("mlp", (2,), width=16, depth=1)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    diagnosis = nd.measure(denoiser, data, 3, samples=16, probes=3)
    from ntkdiag.claims.distortion import distortion

    grams = [diagnosis.grams[name].numpy() for name in ("output", "output_best", "output_data")]
    kept = distortion(diagnosis.summary["log_snr"].to_numpy(), *grams).ends
    found = nd.trust.outputs(denoiser, data, buckets=3, samples=16).distortion.ends
    assert found["word"].tolist() == kept["word"].tolist()
    assert np.allclose(found["effect"], kept["effect"])


def test_too_few_samples_are_refused():
    network = nd.models.build("mlp", (2,), width=8, depth=1)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    with pytest.raises(InputError, match="at least 8"):
        nd.trust.outputs(denoiser, nd.data.load("mixture"), buckets=3, samples=4)
