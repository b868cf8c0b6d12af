"""Networks whose answers are known: linear ones, a square, and two layers of any width in NTK scaling."""

from __future__ import annotations

import math

import torch
from torch import nn

from ntkdiag import data
from ntkdiag.denoiser import Denoiser
from ntkdiag.process import schedules


def with_x_alone(network, target="v"):
    """A denoiser whose network sees the noisy input and nothing else."""
    return Denoiser(network, schedules.cosine(), target, call=lambda network, x, log_snr, cond: network(x))


def linear_denoiser(dtype=torch.float32):
    torch.manual_seed(0)
    return with_x_alone(nn.Linear(2, 2).to(dtype))


class Square(nn.Module):
    """f = w² x: a step d changes it by (2 w d + d²) x, so the relative error of the linear model is d / (2 w)."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.w**2 * x


class TwoLayers(nn.Module):
    """f = a·tanh(W x) / √width with entries of N(0, 1) (Jacot et al. 2018)."""

    def __init__(self, width, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(width, 2, generator=generator))
        self.second = nn.Parameter(torch.randn(2, width, generator=generator))

    def forward(self, x):
        return torch.tanh(x @ self.first.T) @ self.second.T / math.sqrt(len(self.first))


def small_data():
    return data.mixture(train=200, held_out=100, seed=0)
