"""Bounds on what gradient flow leaves of a signal, against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.spectra import SignalSpectrum, signal_spectrum

TIMES = np.concatenate([[0.0], np.logspace(-3, 5, 41)])


def matrix(values: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[
        0
    ]
    return (basis * values) @ basis.mT


def random_signal(size: int, seed: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def truth(kernel: Tensor, signal: Tensor) -> np.ndarray:
    values, vectors = torch.linalg.eigh(kernel)
    share = ((vectors.mT @ signal).square() / signal.square().sum()).numpy()
    return np.exp(-2 * np.multiply.outer(TIMES, values.clamp(min=0).numpy())) @ share


def found(kernel: Tensor, signal: Tensor, steps: int) -> SignalSpectrum:
    result = signal_spectrum(lambda block: kernel @ block, signal, steps=steps)
    assert result is not None
    return result


SPECTRA = {
    "power law": 1 / torch.arange(1.0, 61).double() ** 2,
    "flat": torch.ones(60).double(),
    "rank deficient": torch.cat([torch.linspace(1, 2, 10).double(), torch.zeros(50).double()]),
    "clustered": torch.tensor([1.0, 1e-2, 1e-4] * 20).double(),
    "wide": torch.logspace(0, -12, 60).double(),
}


@pytest.mark.parametrize("steps", [1, 2, 7, 25])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_truth_lies_between_the_bounds(name: str, steps: int) -> None:
    for seed in range(5):
        kernel, signal = matrix(SPECTRA[name], seed), random_signal(60, seed + 100)
        low, high = found(kernel, signal, steps).left(TIMES)
        expected = truth(kernel, signal)
        assert (low <= expected + 1e-10).all()
        assert (expected <= high + 1e-10).all()
        assert (low[0], high[0]) == pytest.approx((1, 1))


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_more_steps_never_widen_the_bounds(seed: int, steps: int) -> None:
    kernel, signal = matrix(SPECTRA["power law"][:12], seed), random_signal(12, seed + 1)
    low, high = found(kernel, signal, steps).left(TIMES)
    closer_low, closer_high = found(kernel, signal, steps + 1).left(TIMES)
    assert (closer_low >= low - 1e-9).all()
    assert (closer_high <= high + 1e-9).all()


@pytest.mark.parametrize("name", SPECTRA)
def test_with_all_steps_both_bounds_are_the_truth(name: str) -> None:
    kernel, signal = matrix(SPECTRA[name], 3), random_signal(60, 4)
    rules = found(kernel, signal, 100)
    assert rules.products <= 60
    low, high = rules.left(TIMES)
    assert low == pytest.approx(truth(kernel, signal), abs=1e-7)
    assert high == pytest.approx(truth(kernel, signal), abs=1e-7)


def test_a_space_that_closes_early_is_exact_and_stops() -> None:
    rules = found(torch.eye(50).double() * 3, random_signal(50, 0), 20)
    assert rules.products == 1
    low, high = rules.left(TIMES)
    assert low == pytest.approx(np.exp(-6 * TIMES)) and high == pytest.approx(low)


def test_a_kernel_of_zeros_leaves_everything() -> None:
    low, high = found(torch.zeros(5, 5).double(), random_signal(5, 0), 4).left(TIMES)
    assert (low == 1).all() and (high == 1).all()


def test_one_row() -> None:
    low, high = found(torch.tensor([[2.0]]).double(), torch.tensor([-7.0]).double(), 3).left(TIMES)
    assert low == pytest.approx(np.exp(-4 * TIMES)) and high == pytest.approx(low)


def test_single_precision_bounds_to_its_rounding() -> None:
    kernel, signal = matrix(SPECTRA["power law"], 0), random_signal(60, 1)
    result = signal_spectrum(lambda block: kernel.float() @ block, signal.float(), steps=25)
    assert result is not None
    times = TIMES[TIMES <= 1e3]
    low, high = result.left(times)
    expected = truth(kernel, signal)[: len(times)]
    assert (low <= expected + 1e-3).all() and (expected <= high + 1e-3).all()


def test_a_signal_of_zero_has_no_spectrum() -> None:
    assert signal_spectrum(lambda block: block, torch.zeros(4)) is None


def test_no_steps_are_refused() -> None:
    with pytest.raises(InputError, match="steps"):
        signal_spectrum(lambda block: block, torch.ones(4), steps=0)
