"""Numbers for the quality of samples, each beside its floor: what real training data score by the same measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
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

# Draws whose mean is the floor.
_FLOOR_DRAWS = 8


class Judge:
    """Compares samples with the held-out data.

    The classifier behind the features learns from one half of the training data, and the floors are drawn from the other:
    of pictures that it has learned from, features are unlike those of held-out ones, which have nothing to do with samples.

    Args:
        data: Its training part gives the classifier and the floors.
        count: Samples that are judged: as many real ones give the floor, or all that there are.
        most: Held-out samples that are used, at most.
        by_class: Draw floors with as many samples of each class as the held-out samples have, as is fair where the samples
            were drawn for the labels of these.

    Attributes:
        unseen: Training samples that the classifier has not learned from.
        features: Hash of the classifier behind the features; empty where the data are no labelled pictures.
    """

    def __init__(self, data: Data, count: int, most: int, by_class: bool = False) -> None:
        held_out = data.held_out_for("the quality of samples")
        self.held_out = held_out[torch.arange(min(most, len(held_out)))]
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
        self.network = None
        if len(data.shape) == 3 and data.labels is not None:
            seen, order = order.tensor_split(2)
            half = replace(data, train=data.train[seen], labels=data.labels[seen], cond={}, held_out_cond={})
            self.network = train_feature_network(half)
        self.unseen = data.train[order]
        self.features = "" if self.network is None else self.network.digest[:16]
        self._groups = [(self.unseen, count)]
        if by_class and data.labels is not None and data.held_out_labels is not None:
            labels, wanted = data.labels[order], data.held_out_labels[: len(self.held_out)].bincount()
            self._groups = [(self.unseen[labels == one], int(many)) for one, many in enumerate(wanted)]
        floors = pd.DataFrame([self._measures(real) for real in self._real()]).mean()
        self.floors = {f"{name}_floor": value for name, value in floors.items()}

    def _real(self) -> Iterator[Tensor]:
        """Draws of real samples, without replacement: from each group as many as it says, or all that there are."""
        for seed in range(_FLOOR_DRAWS):
            generator = torch.Generator().manual_seed(seed)
            parts = [
                rows[torch.randperm(len(rows), generator=generator)[:many]] for rows, many in self._groups
            ]
            yield torch.cat(parts)

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
