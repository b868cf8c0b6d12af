"""The two data sets that come with the package, and the split they share."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from ntkdiag import data
from ntkdiag.data.dataset import split
from ntkdiag.data.mixture import MODES, RADIUS, STD, mixture_means
from ntkdiag.errors import InputError
from ntkdiag.process.bayes import Oracle


def test_digits_are_scikit_learns_pixels_scaled_and_split_once():
    from sklearn.datasets import load_digits

    digits = data.digits()
    assert digits.train.shape == (1400, 1, 8, 8)
    assert digits.held_out.shape == (397, 1, 8, 8)
    assert digits.train.dtype == torch.float32
    assert digits.train.min() == -1
    assert digits.train.max() == 1
    assert digits.oracle is None
    together = torch.cat([digits.train, digits.held_out]).squeeze(1).numpy()
    restored = np.sort(((together + 1) * 8).reshape(1797, 64), axis=0)
    assert np.array_equal(restored, np.sort(load_digits().images.reshape(1797, 64), axis=0))


def test_seed_decides_the_split():
    assert data.digits(3).digest == data.digits(3).digest
    assert data.digits(3).digest != data.digits(4).digest


def test_mixture_has_the_moments_of_its_eight_modes():
    mixture = data.mixture(train=40_000, held_out=500, seed=1)
    assert mixture.shape == (2,)
    assert mixture.held_out.shape == (500, 2)
    exact = RADIUS**2 / 2 + STD**2
    assert mixture.variance == pytest.approx(exact, abs=4 * exact / math.sqrt(40_000))
    nearest = torch.cdist(mixture.train.double(), mixture_means()).min(dim=1)
    counts = torch.bincount(nearest.indices, minlength=MODES)
    assert (counts - 5000).abs().max() < 5 * math.sqrt(40_000 * 7 / 64)
    assert nearest.values.square().mean().sqrt() == pytest.approx(STD * math.sqrt(2), rel=0.02)


def test_mixture_oracle_is_that_of_the_points():
    """The posterior mean must have the smaller error, and exactly the error the oracle states."""
    mixture = data.mixture(train=20_000, held_out=1, seed=2)
    assert isinstance(mixture.oracle, Oracle)
    alpha = sigma = math.sqrt(0.5)
    x0 = mixture.train.double()
    epsilon = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guess = mixture.oracle.posterior_mean(alpha * x0 + sigma * epsilon, alpha, sigma)
    error = (x0 - guess).square().mean(dim=1)
    stated, spread = mixture.oracle.mmse_estimate(0.0)
    tolerance = 4 * math.hypot(float(error.std()) / math.sqrt(20_000), float(spread))
    assert float(error.mean()) == pytest.approx(float(stated), abs=tolerance)


def test_mixture_points_depend_on_the_seed_alone():
    torch.manual_seed(0)
    first = data.mixture(64, 16, seed=5)
    torch.manual_seed(1)
    assert data.mixture(64, 16, seed=5).digest == first.digest
    assert data.mixture(64, 16, seed=6).digest != first.digest
    with pytest.raises(InputError, match="train: expected an integer of at least 1"):
        data.mixture(train=0)


def test_split_parts_the_samples():
    samples = torch.arange(10.0)[:, None]
    train, held_out = split(samples, 3, seed=0)
    assert len(held_out) == 3
    assert torch.equal(torch.cat([train, held_out]).flatten().sort().values, samples.flatten())
    assert not torch.equal(train.flatten(), samples.flatten()[3:])  # in another order
    for count in (0, 10, 11):
        with pytest.raises(InputError, match="samples: expected more than"):
            split(samples, count, seed=0)


def good():
    return torch.zeros(4, 2), torch.ones(3, 2)


@pytest.mark.parametrize(
    ("train", "held_out", "words"),
    [
        (torch.zeros(0, 2), torch.ones(3, 2), "training samples of 'mine'.*at least one sample"),
        (torch.zeros(4, 2), torch.ones(0, 2), "held-out samples of 'mine'.*at least one sample"),
        (torch.zeros(4), torch.ones(3), "at least one sample and one dimension"),
        (torch.zeros(4, 2).long(), torch.ones(3, 2), "floating-point tensor.*got torch.int64"),
        (np.zeros((4, 2)), torch.ones(3, 2), "floating-point tensor.*got ndarray"),
        (torch.zeros(4, 3), torch.ones(3, 2), r"shape \(3,\).*got shape \(2,\)"),
        (torch.zeros(4, 2), torch.ones(3, 2).double(), "got shape .* and torch.float64"),
    ],
)
def test_data_refuses_what_is_no_data(train, held_out, words):
    with pytest.raises(InputError, match=words):
        data.Data("mine", train, held_out)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_data_names_the_first_sample_that_is_not_finite(bad):
    train, held_out = good()
    train[2, 1] = train[3, 0] = bad
    with pytest.raises(InputError, match=r"in sample 2 \(2 of 4 samples affected\)"):
        data.Data("mine", train, held_out)


def test_data_cannot_be_changed_and_states_its_variance_and_digest():
    train, held_out = good()
    train[:, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    mine = data.Data("mine", train, held_out)
    assert mine.variance == pytest.approx((1.25 + 0) / 2)
    assert data.Data("other name", train.clone(), held_out).digest == mine.digest
    assert data.Data("mine", train + 1, held_out).digest != mine.digest
    with pytest.raises(dataclasses.FrozenInstanceError):
        mine.name = "yours"


def test_load_knows_the_names_and_says_them():
    assert data.load("digits", seed=2).digest == data.digits(2).digest
    assert data.load("mixture", seed=2).digest == data.mixture(seed=2).digest
    with pytest.raises(
        InputError, match=r"a path: \.npy, .*\): expected one of digits, mixture.*'digitz'.*'digits'"
    ):
        data.load("digitz")
