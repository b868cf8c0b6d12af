"""Prescribed spectra come back; what is not a Gram matrix is refused or shown."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from spectra_populations import with_spectrum

from ntkdiag.errors import InputError
from ntkdiag.spectra import eigenpairs, eigenvalues

SPECTRA = {
    "flat": np.ones(12),
    "power law": np.arange(1, 13) ** -2.0,
    "rank deficient": np.append(np.linspace(3, 1, 5), np.zeros(7)),
    "rank one": np.append(2.5, np.zeros(11)),
    "zero": np.zeros(12),
    "one sample": np.array([3.0]),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("seed", [0, 1])
def test_prescribed_spectrum_is_recovered(name: str, seed: int) -> None:
    wanted = SPECTRA[name]
    spectrum = eigenvalues(with_spectrum(wanted, np.random.default_rng(seed)))
    np.testing.assert_allclose(spectrum.values, wanted, atol=1e-13)
    assert spectrum.samples == len(wanted)
    assert spectrum.negative_mass < 1e-14
    assert spectrum.vectors is None
    assert spectrum.values.dtype == np.float64


def test_the_normalisation_is_one_over_n() -> None:
    np.testing.assert_allclose(eigenvalues(np.ones((4, 4))).values, [1, 0, 0, 0], atol=1e-15)
    np.testing.assert_allclose(eigenvalues(np.eye(4)).values, np.full(4, 0.25))


def test_eigenpairs_solve_the_eigenproblem() -> None:
    rng = np.random.default_rng(2)
    matrix = with_spectrum(np.arange(1, 9) ** -1.5, rng)
    pairs = eigenpairs(matrix)
    assert pairs.vectors is not None
    np.testing.assert_allclose(matrix / 8 @ pairs.vectors, pairs.vectors * pairs.values, atol=1e-13)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(8), atol=1e-13)
    np.testing.assert_allclose(pairs.values, eigenvalues(matrix).values, atol=1e-14)


def test_negative_mass_is_reported_and_negatives_kept() -> None:
    spectrum = eigenvalues(np.diag([6.0, -2.0]))
    np.testing.assert_allclose(spectrum.values, [3, -1])
    assert spectrum.negative_mass == pytest.approx(0.25)


def test_share_adds_to_one_and_is_undefined_for_zero() -> None:
    np.testing.assert_allclose(eigenvalues(np.diag([3.0, 1.0])).share, [0.75, 0.25])
    assert np.isnan(eigenvalues(np.zeros((3, 3))).share).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_torch_tensors_of_any_real_dtype(dtype: torch.dtype) -> None:
    matrix = torch.tensor([[2, 1], [1, 2]], dtype=dtype)
    np.testing.assert_allclose(eigenvalues(matrix).values, [1.5, 0.5])
    np.testing.assert_allclose(
        eigenvalues(matrix.numpy() if dtype != torch.bfloat16 else matrix).values[0], 1.5
    )


def test_tensor_that_requires_grad() -> None:
    assert eigenvalues(torch.eye(2, requires_grad=True)).values[0] == 0.5


def test_result_cannot_be_changed_and_input_is_not() -> None:
    matrix = np.array([[2.0, 1.0 + 1e-9], [1.0, 2.0]])
    before = matrix.copy()
    pairs = eigenpairs(matrix)
    np.testing.assert_array_equal(matrix, before)
    with pytest.raises(ValueError, match="read-only"):
        pairs.values[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        pairs.vectors[0, 0] = 1  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        pairs.samples = 3  # type: ignore[misc]


def test_asymmetry_of_float32_passes_and_more_does_not() -> None:
    rng = np.random.default_rng(3)
    phi = rng.standard_normal((20, 400)).astype(np.float32)
    product = phi @ phi.T
    product[0, 1] *= 1 + 2e-7
    eigenvalues(product)
    wrong = np.eye(3)
    wrong[0, 1] = 1e-5
    with pytest.raises(InputError, match=r"expected a symmetric matrix .*; got a difference of 1e-05"):
        eigenvalues(wrong)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.ones((2, 3)), r"expected shape \[N, N\] with N ≥ 1; got shape \[2, 3\]"),
        (np.ones(4), r"got shape \[4\]"),
        (np.ones((2, 2, 2)), r"got shape \[2, 2, 2\]"),
        (np.zeros((0, 0)), r"N ≥ 1; got shape \[0, 0\]"),
        (np.array(1.0), r"got shape \[\]"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "expected finite entries; got 2 of 4 NaN or infinite"),
        (np.full((2, 2), np.inf), "got 4 of 4 NaN or infinite"),
        (np.eye(2) * 1j, "expected real numbers; got dtype complex128"),
        (torch.eye(2, dtype=torch.complex64), "expected real numbers; got dtype complex64"),
        (np.array([["a", "b"], ["b", "a"]]), "expected real numbers"),
        (np.array([[None, 1], [1, None]]), "expected real numbers; got dtype object"),
    ],
)
@pytest.mark.parametrize("function", [eigenvalues, eigenpairs])
def test_bad_matrices_are_refused_in_words(function, matrix, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        function(matrix)


def test_permuting_samples_changes_no_eigenvalue() -> None:
    rng = np.random.default_rng(4)
    matrix = with_spectrum(np.arange(1, 10) ** -1.0, rng)
    order = rng.permutation(9)
    moved = eigenvalues(matrix[np.ix_(order, order)])
    np.testing.assert_allclose(moved.values, eigenvalues(matrix).values, atol=1e-13)
