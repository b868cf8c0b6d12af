"""Learnability and half-lives against closed forms and against gradient flow itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import expm

from ntkdiag.errors import InputError
from ntkdiag.recoverability import contraction, learnability, median_half_life


def eigenpairs(seed: int = 0, size: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random kernel of full rank with its eigenpairs, largest first."""
    factor = np.random.default_rng(seed).standard_normal((size, size + 3))
    kernel = factor @ factor.T / size
    values, vectors = np.linalg.eigh(kernel)
    return kernel, values[::-1], vectors[:, ::-1]


def test_an_identity_kernel_keeps_the_same_share_of_everything() -> None:
    """K = e I: L = e/(e + κ) whatever the signal."""
    signal = np.random.default_rng(1).standard_normal((5, 3))
    for kappa in (0.1, 1.0, 7.0):
        assert learnability(np.full(5, 2.0), np.eye(5), signal, kappa) == pytest.approx(2 / (2 + kappa))


def test_it_is_the_fit_of_ridge_regression() -> None:
    kernel, values, vectors = eigenpairs()
    signal = np.random.default_rng(1).standard_normal((8, 3))
    for kappa in (0.01, 1.0, 50.0):
        fit = kernel @ np.linalg.solve(kernel + kappa * np.eye(8), signal)
        expected = (signal * fit).sum() / np.square(signal).sum()
        assert learnability(values, vectors, signal, kappa) == pytest.approx(expected, rel=1e-12)


def test_limits_in_kappa() -> None:
    _, values, vectors = eigenpairs()
    signal = np.random.default_rng(1).standard_normal((8, 3))
    curve = [learnability(values, vectors, signal, kappa) for kappa in 10.0 ** np.arange(-15, 16, 3)]
    assert curve == sorted(curve, reverse=True)
    assert curve[0] == pytest.approx(1.0, abs=1e-12) and 0 < curve[-1] < 1e-13


def test_a_signal_along_one_eigenvector_is_learnable_as_that_one_is() -> None:
    _, values, vectors = eigenpairs()
    for k in (0, 3, 7):
        found = learnability(values, vectors, vectors[:, [k]] * [[2.0, -1.0]], 0.5)
        assert found == pytest.approx(values[k] / (values[k] + 0.5), rel=1e-12)


def test_negative_eigenvalues_and_scale() -> None:
    signal = np.ones((2, 1))
    assert learnability(np.array([1.0, -0.5]), np.eye(2), signal, 1.0) == pytest.approx(0.25)
    assert learnability(np.array([3.0, 1.0]), np.eye(2), 1e-8 * signal, 1.0) == pytest.approx(
        learnability(np.array([3.0, 1.0]), np.eye(2), 1e8 * signal, 1.0)
    )


@pytest.mark.parametrize("function", [learnability, median_half_life])
def test_a_zero_signal_has_no_answer(function: object) -> None:
    arguments = (np.ones(2), np.eye(2), np.zeros((2, 1)))
    found = function(*arguments, 1.0) if function is learnability else function(*arguments)  # type: ignore[operator]
    assert math.isnan(found)


@pytest.mark.parametrize("kappa", [0.0, -1.0, math.nan])
def test_kappa_must_be_positive(kappa: float) -> None:
    with pytest.raises(InputError, match="kappa: expected a number above 0"):
        learnability(np.ones(2), np.eye(2), np.ones((2, 1)), kappa)


def test_contraction_is_gradient_flow() -> None:
    """r(τ) = e^{−Kτ} r: the energy left, by the matrix exponential."""
    kernel, values, vectors = eigenpairs()
    residual = np.random.default_rng(2).standard_normal((8, 3))
    share = np.square(vectors.T @ residual).sum(1) / np.square(residual).sum()
    for time in (0.0, 0.1, 3.0):
        left = np.square(expm(-kernel * time) @ residual).sum() / np.square(residual).sum()
        assert contraction(values, share, time) == pytest.approx(left, rel=1e-10)


@pytest.mark.parametrize("rate", [1e-9, 0.3, 1.0, 1e12])
def test_median_half_life_of_one_rate(rate: float) -> None:
    """C(τ) = e^{−2τe} = ½ at τ = ln 2/(2e): energy halves twice as fast as the residual itself."""
    found = median_half_life(np.full(4, rate), np.eye(4), np.ones((4, 2)))
    assert found == pytest.approx(math.log(2) / (2 * rate), rel=1e-12)


def test_median_half_life_of_two_rates_in_closed_form() -> None:
    """Rates 2 and 1, equal shares: with z = e^{−2τ}, (z² + z)/2 = ½, so z is 1/golden ratio."""
    found = median_half_life(np.array([2.0, 1.0]), np.eye(2), np.ones((2, 1)))
    assert found == pytest.approx(math.log((1 + math.sqrt(5)) / 2) / 2, rel=1e-12)


def test_median_half_life_is_where_half_is_left() -> None:
    for seed in range(20):
        kernel, values, vectors = eigenpairs(seed)
        residual = np.random.default_rng(seed).standard_normal((8, 2))
        found = median_half_life(values, vectors, residual)
        left = np.square(expm(-kernel * found) @ residual).sum() / np.square(residual).sum()
        assert left == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize(
    ("eigenvalues", "shares", "finite"),
    [
        ([1.0, 0.0], [0.51, 0.49], True),
        ([1.0, 0.0], [0.5, 0.5], False),
        ([1.0, 0.0], [0.49, 0.51], False),
        ([1.0, 1e-7], [0.4, 0.6], False),  # below what a float32 network resolves
        ([1.0, 1e-5], [0.4, 0.6], True),
        ([0.0, 0.0], [0.5, 0.5], False),
        ([1.0, -0.5], [0.4, 0.6], False),
    ],
)
def test_what_the_kernel_does_not_reach_never_halves(
    eigenvalues: list[float], shares: list[float], finite: bool
) -> None:
    residual = np.sqrt(np.array(shares))[:, None]
    found = median_half_life(np.array(eigenvalues), np.eye(2), residual)
    assert math.isfinite(found) == finite
    if finite:
        assert contraction(np.array(eigenvalues), np.array(shares), found) == pytest.approx(0.5)
