"""Eight Gaussian modes on a circle: data whose optimal denoiser is known exactly.

A trained network can be compared with the truth: its loss with the Bayes floor, its samples with the true density.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkdiag.data.dataset import Data
from ntkdiag.errors import require_positive_int
from ntkdiag.process.bayes import MixtureOracle

MODES = 8
# Neighbouring modes are 0.77 = 7.7 standard deviations apart, so they do not overlap. The variance per dimension
# is radius²/2 + std² = 0.51, so signal and noise balance near log-SNR 0.
RADIUS = 1.0
STD = 0.1


def mixture_means() -> Tensor:
    """Centres of the modes, [8, 2] float64, counter-clockwise from (1, 0)."""
    angles = torch.arange(MODES, dtype=torch.float64) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def mixture(train: int = 8192, held_out: int = 4096, seed: int = 0) -> Data:
    """Draw samples of the mixture: eight modes in two dimensions.

    Args:
        train: Number of training points.
        held_out: Number of held-out points.
        seed: Seed of the draw.

    Returns:
        Data of shape (2,) in float32 with the exact oracle.

    Raises:
        InputError: a number is not a positive integer.

    Example:
        >>> mixture(train=100, held_out=10).oracle.label
        'exact posterior of the mixture'
    """
    require_positive_int("train", train)
    require_positive_int("held_out", held_out)
    oracle = MixtureOracle(mixture_means(), std=STD)
    points = oracle.sample(train + held_out, torch.Generator().manual_seed(seed)).float()
    return Data("mixture", points[:train], points[train:], oracle)
