"""A small classifier, trained once on a labelled set of pictures, whose last layer but one says how alike pictures are.

Distances of its features are named after the data ("FD-digits"): they are not those of Inception features, and they compare
only where the weights are the same, which `FeatureNetwork.digest` says.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from ntkdiag.data import Data
from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.provenance import digest
from ntkdiag.randomness import generator
from ntkdiag.state_dicts.weight_files import state_of

# Tuned here on the digits: 0.98 of the held-out pictures are named rightly, after seconds.
_STEPS, _BATCH, _RATE = 400, 128, 2e-3
_WIDTH = 16
_FORWARD = 1024


class FeatureNetwork(nn.Module):
    """Two convolutions, the second at half of the resolution, their mean over a 4×4 grid, and one hidden layer.

    Args:
        shape: [channels, height, width] of a picture, at least 4×4.
        classes: Number of classes.
        features: Size of the hidden layer, the features.

    Raises:
        InputError: samples that are no pictures, or a size below 1.

    Example:
        >>> network = nd.train.FeatureNetwork((1, 8, 8), classes=10, features=16)
        >>> sum(parameter.numel() for parameter in network.parameters()) > 0
        True
    """

    def __init__(self, shape: tuple[int, ...], classes: int, features: int = 32) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 4:
            raise InputError(
                "pictures for a feature network",
                expected="[channels, height ≥ 4, width ≥ 4]",
                got=list(shape),
            )
        self.body = nn.Sequential(
            nn.Conv2d(shape[0], _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(2 * _WIDTH * 16, require_positive_int("features", features)),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(features, require_positive_int("classes", classes)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W] → logits [N, classes]."""
        logits: Tensor = self.head(self.body(pictures))
        return logits

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W] of any device → features [N, features], float64 on the CPU."""
        place = next(self.parameters())
        parts = [self.body(part.to(place)).double().cpu() for part in pictures.split(_FORWARD)]
        return torch.cat(parts)

    @cached_property
    def digest(self) -> str:
        """Hash of the weights: distances compare only where it is equal."""
        return digest(*state_of(self).values())


def train_feature_network(
    data: Data, *, steps: int = _STEPS, features: int = 32, seed: int = 0
) -> FeatureNetwork:
    """Train a `FeatureNetwork` on the labels of the training pictures.

    Its features of pictures that it has learned from are unlike those of others. A floor, what real pictures score, is that
    of pictures it has not learned from: train it on a part of the data.

    Args:
        data: Pictures with labels.
        steps: Steps of Adam, batches of 128 drawn with replacement.
        features: Number of features.
        seed: Of the start and of the batches: on one machine it gives the same bytes.

    Returns:
        The network in eval mode.

    Raises:
        InputError: data without labels, or samples that are no pictures.

    Example:
        >>> network = nd.train.train_feature_network(nd.data.load("digits"), steps=5)
        >>> network.features(nd.data.load("digits").train[:3]).shape
        torch.Size([3, 32])
    """
    require_positive_int("steps", steps)
    if data.labels is None:
        raise InputError(f"labels of '{data.name}'", expected="a whole number for each picture", got="none")
    labels = data.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FeatureNetwork(data.shape, int(labels.max()) + 1, features)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    choice = generator(seed, "batches")
    for _ in range(steps):
        index = torch.randint(len(labels), (_BATCH,), generator=choice)
        loss = nn.functional.cross_entropy(network(data.train[index].float()), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)
