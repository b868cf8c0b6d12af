"""Distances of pictures: closed forms, unbiasedness, neighbours by hand, and the classifier behind the features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ntkdiag.data import Data, load
from ntkdiag.errors import InputError
from ntkdiag.train import (
    FeatureNetwork,
    frechet_distance,
    neighbour_shares,
    polynomial_mmd,
    sliced_wasserstein,
    train_feature_network,
)


def normal(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_frechet_of_a_shifted_and_scaled_copy() -> None:
    x = normal(500, 3, 0)
    x = x - x.mean(0)
    # Covariance C against 4 C: tr(C + 4 C - 2 · 2 C) = tr C; the means are 2 apart in one coordinate.
    shift = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(x, 2 * x + shift) == pytest.approx(4 + float(x.T.cov().trace()), rel=1e-9)


def test_frechet_of_covariances_that_do_not_commute() -> None:
    """By the symmetric form with square roots of matrices, from eigenvectors."""

    def root(matrix: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(matrix)
        return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T

    x, y = normal(60, 4, 1) @ normal(4, 4, 2), normal(70, 4, 3) @ normal(4, 4, 4)
    s, t = x.T.cov().numpy(), y.T.cov().numpy()
    truth = np.trace(s + t - 2 * root(root(s) @ t @ root(s))) + (x.mean(0) - y.mean(0)).square().sum().item()
    assert frechet_distance(x, y) == pytest.approx(truth, rel=1e-6)
    assert frechet_distance(x[:, None], y[:, None]) == pytest.approx(frechet_distance(y, x), rel=1e-6)


def test_mmd_is_unbiased_and_that_of_its_definition() -> None:
    x, y = normal(6, 2, 0), normal(5, 2, 1) + 1
    kernel = lambda a, b: float((a @ b / 2 + 1) ** 3)  # noqa: E731
    pairs = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    other = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    crossed = [kernel(a, b) for a in x for b in y]
    truth = np.mean(pairs) + np.mean(other) - 2 * np.mean(crossed)
    assert polynomial_mmd(x, y) == pytest.approx(truth, rel=1e-12)
    same = np.array([polynomial_mmd(normal(4, 2, 2 * s + 10), normal(4, 2, 2 * s + 11)) for s in range(1500)])
    assert abs(same.mean()) < 4 * same.std() / math.sqrt(len(same)) and 0.3 < (same < 0).mean() < 0.7


def test_sliced_wasserstein_of_a_shift_and_of_unequal_numbers() -> None:
    x = normal(40, 3, 0)
    # E⟨s, θ⟩² = ‖s‖²/d over the sphere, here 4/3; the same along every direction for a shift.
    shift = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    assert sliced_wasserstein(x, x + shift, directions=20_000) == pytest.approx((4 / 3) ** 0.5, rel=0.03)
    assert sliced_wasserstein(x, x[torch.randperm(40)]) == 0
    # In one dimension 4 against 6 points is 12 against 12, each repeated.
    a, b = normal(4, 1, 1), normal(6, 1, 2) + 1
    whole = (
        (a.repeat_interleave(3, 0).sort(0).values - b.repeat_interleave(2, 0).sort(0).values).square().mean()
    )
    assert sliced_wasserstein(a, b) == pytest.approx(float(whole.sqrt()), rel=1e-12)
    assert sliced_wasserstein(x, x + 1, seed=1) != sliced_wasserstein(x, x + 1)


def test_neighbour_shares_by_another_search() -> None:
    x, y, k = normal(40, 3, 0) * 0.7, normal(50, 3, 1), 3

    def reach(points: torch.Tensor) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, -1]

    across = np.linalg.norm(x[:, None].numpy() - y[None].numpy(), axis=2)
    real, fake = across <= reach(y)[None], across <= reach(x)[:, None]
    assert neighbour_shares(x, y, k) == pytest.approx(
        {"precision": real.any(1).mean(), "recall": fake.any(0).mean(),
         "density": real.sum(1).mean() / k, "coverage": real.any(0).mean()}
    )  # fmt: skip


def test_a_copy_is_perfect_and_a_collapsed_or_distant_set_is_not() -> None:
    y = normal(60, 2, 0)
    assert neighbour_shares(y, y) == {
        "precision": 1.0,
        "recall": 1.0,
        "density": pytest.approx(1.2),
        "coverage": 1.0,
    }
    collapsed = neighbour_shares(y[:1] + 1e-3 * normal(60, 2, 1), y)
    assert collapsed["precision"] == 1.0 and collapsed["recall"] < 0.1 and collapsed["coverage"] < 0.3
    assert neighbour_shares(y + 99, y) == dict.fromkeys(("precision", "recall", "density", "coverage"), 0.0)


def test_too_few_samples_and_other_sizes_are_refused() -> None:
    y = normal(9, 2, 0)
    for call in (frechet_distance, polynomial_mmd, neighbour_shares):
        with pytest.raises(InputError, match="at least"):
            call(y[:1], y)
        with pytest.raises(InputError, match=r"vectors of shape \(2,\)"):
            call(y, normal(9, 3, 0))


def test_the_classifier_knows_held_out_digits_and_is_the_same_for_a_seed() -> None:
    data = load("digits")
    state = torch.get_rng_state()
    network = train_feature_network(data)
    assert torch.equal(torch.get_rng_state(), state) and not network.training
    right = (network(data.held_out).argmax(1) == data.held_out_labels).float().mean()
    assert right > 0.95
    short = [train_feature_network(data, steps=3, seed=seed).digest for seed in (0, 0, 1)]
    assert short[0] == short[1] != short[2]
    features = network.features(data.held_out)
    assert features.shape == (397, 32) and features.dtype == torch.float64
    assert frechet_distance(features[:200], features[200:]) < 0.1 * frechet_distance(
        features, network.features(torch.rand_like(data.held_out) * 2 - 1)
    )


def test_what_is_no_labelled_picture_is_refused() -> None:
    with pytest.raises(InputError, match="labels of 'p'"):
        train_feature_network(Data("p", torch.zeros(4, 1, 8, 8)))
    with pytest.raises(InputError, match="pictures for a feature network"):
        FeatureNetwork((2,), 3)
