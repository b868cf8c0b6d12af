"""One number for the quality of samples, and its floor: what real training data score by the same measure."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.data import Data
from ntkdiag.train import energy_distance_to_data


def quality(samples: Tensor, data: Data, name: str) -> tuple[float, float]:
    """Distance of samples to the held-out data, and its floor; smaller is better.

    Energy distance on the mixture, Fréchet distance of the pixels on pictures.
    """
    held_out = data.held_out_for("the quality of samples")
    held_out = held_out[torch.arange(len(held_out))]
    if name == "mixture":
        found = energy_distance_to_data(samples, held_out, data.train)
        return found.samples.value, found.floor.value
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: len(samples)]
    return frechet(samples, held_out), frechet(data.train[order], held_out)


def frechet(left: Tensor, right: Tensor) -> float:
    """‖μ − ν‖² + tr(S + T − 2 (S T)^½), the distance of two normal distributions (Dowson & Landau 1982).

    S T has the eigenvalues of S^½ T S^½, which are real and not negative.
    """
    x, y = (side.double().flatten(1) for side in (left, right))
    covariances = x.T.cov(), y.T.cov()
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp_min(0).sqrt()
    traces = covariances[0].trace() + covariances[1].trace()
    return float((x.mean(0) - y.mean(0)).square().sum() + traces - 2 * roots.sum())
