"""Shares of variance: a source that cannot matter gets nothing, one that is all there is gets everything."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ntkdiag as nd
from ntkdiag.diagnosis.variance import variance_shares
from ntkdiag.errors import InputError


class Scale(nn.Module):
    """f(x) = θ x: K_ij = x_i · x_j / D, so signs of probes matter only through cross terms."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return self.theta * x


def shares(log_snr: float, probes: int, repeats: int = 6) -> dict[tuple[str, str], float]:
    denoiser = nd.Denoiser(Scale(), nd.schedules.cosine(), "epsilon", call="log_snr")
    data = nd.data.load("mixture")
    table = variance_shares(denoiser, data, log_snr, samples=32, probes=probes, repeats=repeats)
    return {(row.statistic, row.source): row.share for row in table.itertuples()}


def test_exhaustive_probes_explain_nothing():
    found = shares(0.0, probes=2)
    assert found["trace", "probes"] == pytest.approx(0, abs=1e-12)
    assert found["trace", "all"] == 1.0


def test_pure_data_leaves_nothing_to_the_noise_and_pure_noise_nothing_to_the_data():
    clean, noisy = shares(60.0, probes=2), shares(-60.0, probes=2)
    assert clean["trace", "noise"] == pytest.approx(0, abs=1e-9)
    assert clean["trace", "data"] > 0.1
    assert noisy["trace", "data"] == pytest.approx(0, abs=1e-9)
    assert noisy["trace", "noise"] > 0.1


def test_one_random_probe_explains_a_part():
    assert shares(0.0, probes=1)["trace", "probes"] > 0.01


def test_one_repeat_is_refused():
    with pytest.raises(InputError, match="repeats"):
        shares(0.0, probes=2, repeats=1)
