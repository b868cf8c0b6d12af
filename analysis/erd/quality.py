"""Numbers for the quality of samples, each beside its floor: what real training data score by the same measure."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.data import Data
from ntkdiag.train import (
    energy_distance,
    frechet_distance,
    neighbour_shares,
    polynomial_mmd,
    sliced_wasserstein,
    train_feature_network,
)


class Judge:
    """Compares samples with the held-out data.

    Args:
        data: Its training part gives the floors.
        count: Samples that are judged: as many real ones give the floor.
        most: Held-out samples that are used, at most.

    Attributes:
        features: Hash of the classifier behind the features; empty where the data are no labelled pictures.
    """

    def __init__(self, data: Data, count: int, most: int) -> None:
        held_out = data.held_out_for("the quality of samples")
        self.data, self.held_out = data, held_out[torch.arange(min(most, len(held_out)))]
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:count]
        self.real = data.train[order]
        self.network = (
            train_feature_network(data) if len(data.shape) == 3 and data.labels is not None else None
        )
        self.features = "" if self.network is None else self.network.digest[:16]
        self.floors = {f"{name}_floor": value for name, value in self._measures(self.real).items()}

    def quality(self, samples: Tensor) -> float:
        """The distance that thresholds are set on, smaller is better: Fréchet of pixels, or energy distance of points."""
        if self.network is not None:
            return frechet_distance(samples, self.held_out)
        return energy_distance(samples, self.held_out).value

    def judge(self, samples: Tensor) -> dict[str, float]:
        """All measures by name, those with _floor for real data."""
        return self._measures(samples) | self.floors

    def _measures(self, samples: Tensor) -> dict[str, float]:
        found = {"quality": self.quality(samples)}
        if self.network is None:
            return found
        ours, held_out = map(self.network.features, (samples, self.held_out))
        found["fd_features"] = frechet_distance(ours, held_out)
        found["mmd_features"] = polynomial_mmd(ours, held_out)
        found["sliced_wasserstein"] = sliced_wasserstein(samples, self.held_out)
        return found | neighbour_shares(ours, held_out)
