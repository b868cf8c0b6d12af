"""Contamination: closed forms, coverage of its interval, and the diagnosis against a network whose noise is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.process.bayes import GaussianOracle
from ntkdiag.recoverability import contamination


def test_equal_energies_are_all_noise_and_none_is_none():
    energy = np.array([1.0, 2.0, 3.0, 4.0])
    found = contamination(energy, energy)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert contamination(0 * energy, energy).value == 0.0
    assert math.isnan(contamination(energy, 0 * energy).value)


def test_the_interval_covers_the_ratio_of_means():
    """Gamma energies whose parts share a factor, as gradients of the same sample do."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        common = generator.gamma(4, size=48)
        noise, rest = 0.3 * common * generator.gamma(4, size=48), common * generator.gamma(4, size=48)
        found = contamination(noise, noise + rest)
        hits += found.low <= 0.3 / 1.3 <= found.high
    assert 0.86 <= hits / 600 <= 0.94


def test_energies_that_are_not_pairs_are_refused():
    with pytest.raises(InputError, match="same shape"):
        contamination(np.ones(3), np.ones(4))


class Optimal(nn.Module):
    """E[x0 | x] of a standard normal x0 on the cosine path, α x, times a parameter that is 1: no excess, all noise."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return self.gain * torch.sigmoid(log_snr).sqrt()[:, None] * x


def test_an_optimal_network_is_all_contamination():
    points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    oracle = GaussianOracle(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    data = nd.data.Data("normal", points, points.clone(), oracle)
    denoiser = nd.Denoiser(Optimal(), nd.schedules.cosine(), "x0", call="log_snr")
    summary = nd.measure(denoiser, data, nd.Buckets.uniform(-4, 4, count=3), samples=32, probes=2).summary
    np.testing.assert_allclose(summary["contamination"], 1.0, rtol=1e-9)
    np.testing.assert_allclose(summary["excess"], 0.0, atol=1e-20)


def test_without_an_oracle_there_is_no_number():
    points = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = nd.data.Data("unknown", points, points.clone())
    denoiser = nd.Denoiser(Optimal(), nd.schedules.cosine(), "x0", call="log_snr")
    summary = nd.measure(denoiser, data, nd.Buckets.uniform(-4, 4, count=2), samples=8, probes=2).summary
    assert summary["contamination"].isna().all()
