"""Alignment, eigenspaces and neighbours of two Gram matrices: closed forms, invariances, edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ntkdiag.errors import InputError
from ntkdiag.spectra import centred_alignment, eigenspace_overlap, neighbour_overlap

FEATURES = np.random.default_rng(0).normal(size=(12, 5))
OTHER = np.random.default_rng(1).normal(size=(12, 3))


def gram(features):
    return features @ features.T


def test_alignment_is_linear_cka_of_the_features():
    x, y = FEATURES - FEATURES.mean(0), OTHER - OTHER.mean(0)
    squares = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert centred_alignment(gram(FEATURES), gram(OTHER)) == pytest.approx(squares)
    assert centred_alignment(gram(FEATURES), 7 * gram(FEATURES + 3.0)) == pytest.approx(1.0)


def test_alignment_of_orthogonal_directions_is_zero():
    one, other = np.array([1.0, -1, 0, 0]), np.array([0, 0, 1.0, -1])
    assert centred_alignment(np.outer(one, one), np.outer(other, other)) == 0.0
    assert math.isnan(centred_alignment(np.ones((4, 4)), np.outer(one, one)))  # no sample is told apart


def test_overlap_of_eigenspaces():
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    values = np.diag([9.0, 8, 7, 1, 0.5, 0.1])
    same = turned @ values @ turned.T
    swapped = turned @ np.diag([7.0, 9, 8, 0.1, 0.5, 1]) @ turned.T
    assert eigenspace_overlap(same, swapped, k=3) == pytest.approx(1.0)
    assert eigenspace_overlap(same, swapped, k=1) == pytest.approx(0.0, abs=1e-12)
    assert eigenspace_overlap(same, same, k=6) == 1.0
    assert math.isnan(eigenspace_overlap(np.zeros((6, 6)), same, k=2))


def test_neighbours_follow_distances_and_not_inner_products():
    places = np.array([0.0, 1.0, 1.9, 10.0, 10.5])
    assert neighbour_overlap(gram(places[:, None]), gram(places[:, None] + 100.0), k=2) == 1.0
    moved = np.array([0.0, 10.0, 1.9, 1.0, 10.5])
    # nearest of each: 1 2 1 4 3 and 3 4 3 2 1
    assert neighbour_overlap(gram(places[:, None]), gram(moved[:, None]), k=1) == 0
    near = np.array([0.0, 1.0, 1.9, 10.0, 3.0])  # nearest of each: 1 2 1 4 2
    assert neighbour_overlap(gram(places[:, None]), gram(near[:, None]), k=1) == pytest.approx(0.8)
    assert neighbour_overlap(gram(FEATURES), gram(OTHER), k=11) == 1.0


@pytest.mark.parametrize("k", [0, 5, 1.5])
def test_bad_numbers_of_neighbours(k):
    with pytest.raises(InputError, match="k"):
        neighbour_overlap(np.eye(5), np.eye(5), k=k)


def test_other_sizes_and_asymmetric_matrices_are_refused():
    for function in (centred_alignment, eigenspace_overlap):
        with pytest.raises(InputError, match="same samples"):
            function(np.eye(5), np.eye(6))
        with pytest.raises(InputError, match="symmetric"):
            function(np.triu(np.ones((5, 5))), np.eye(5))
    with pytest.raises(InputError, match="at least 2 samples"):
        centred_alignment(np.eye(1), np.eye(1))
