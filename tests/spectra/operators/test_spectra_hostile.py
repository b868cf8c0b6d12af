"""Operators and matrices that are extreme, broken or not what was asked for: a right number, or one clear line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from prescribed import matrix
from torch import Tensor

from ntkdiag import spectra
from ntkdiag.errors import InputError, MeasurementError, NtkdiagError
from ntkdiag.spectra import (
    density,
    effective_rank,
    entropy_effective_rank,
    lanczos_quadrature,
    signal_spectrum,
    top_eigenpairs,
    trace_estimates,
)

SIZE = 60
POWER_LAW = np.arange(1, SIZE + 1.0) ** -1.0
SCALES = [
    (torch.float64, 1e-200),
    (torch.float64, 1e-160),
    (torch.float64, 1e-13),
    (torch.float64, 1e160),
    (torch.float64, 1e200),
    (torch.float32, 1e-26),
    (torch.float32, 1e-29),
    (torch.float32, 1e20),
    (torch.float32, 1e35),
]


def scaled(dtype: torch.dtype, scale: float) -> Tensor:
    return (matrix(POWER_LAW) * scale).to(dtype)


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_eigenpairs_do_not_depend_on_the_scale(dtype: torch.dtype, scale: float) -> None:
    a = scaled(dtype, scale)
    found = top_eigenpairs(lambda v: a @ v, a[:1], SIZE, 5)
    assert found.converged
    np.testing.assert_allclose(found.values.numpy() / scale, POWER_LAW[:5], rtol=1e-5)
    assert (found.residuals.numpy() < 1e-5 * scale).all()


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_quadrature_does_not_depend_on_the_scale(dtype: torch.dtype, scale: float) -> None:
    a, one = scaled(dtype, scale), scaled(dtype, 1.0)
    rule = lanczos_quadrature(lambda v: a @ v, a[:1], SIZE, vectors=4, steps=20)
    same = lanczos_quadrature(lambda v: one @ v, one[:1], SIZE, vectors=4, steps=20)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    np.testing.assert_allclose(
        rule.sums(lambda x: x) / scale, same.sums(lambda x: x), rtol=max(tolerance, 1e-6)
    )
    found, truth = entropy_effective_rank(rule), entropy_effective_rank(same)
    for name in ("value", "low", "high", "stderr"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=tolerance)
    grid = np.linspace(-6, 1, 50)
    bands, wanted = density(rule, grid + np.log(scale)), density(same, grid)
    for band, one_band in zip(bands, wanted, strict=True):
        np.testing.assert_allclose(band, one_band, rtol=100 * tolerance, atol=100 * tolerance * SIZE)


@pytest.mark.parametrize("probes", [6, SIZE])
@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_traces_do_not_depend_on_the_scale(dtype: torch.dtype, scale: float, probes: int) -> None:
    a, one = scaled(dtype, scale), scaled(dtype, 1.0)
    if abs(np.log10(scale)) > 140:  # the square itself is no float64
        with pytest.raises(MeasurementError, match="trace of the operator's square"):
            trace_estimates(lambda v: a @ v, a[:1], SIZE, probes)
        return
    found = trace_estimates(lambda v: a @ v, a[:1], SIZE, probes)
    truth = trace_estimates(lambda v: one @ v, one[:1], SIZE, probes)
    for name, power in (("trace", 1), ("square", 2), ("participation_ratio", 0)):
        for part in ("value", "low", "high"):
            left, right = (getattr(getattr(each, name), part) for each in (found, truth))
            assert left / scale**power == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_bounds_on_a_signal_do_not_depend_on_the_scale(dtype: torch.dtype, scale: float) -> None:
    a, one = scaled(dtype, scale), scaled(dtype, 1.0)
    signal = torch.linspace(-1, 2, SIZE, dtype=dtype)
    times = np.logspace(-2, 2, 9)
    for factor in (1.0, 1e-30, 1e30):
        found = signal_spectrum(lambda v: a @ v, signal * factor, steps=15)
        truth = signal_spectrum(lambda v: one @ v, signal, steps=15)
        for left, right in zip(found.left(times / scale), truth.left(times), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-4 if dtype == torch.float32 else 1e-9)


def test_subnormal_products_are_refused() -> None:
    for dtype, scale in ((torch.float64, 1e-318), (torch.float32, 1e-42)):
        a = scaled(torch.float64, 1.0).to(dtype) * scale
        for run in OPERATOR_ESTIMATORS.values():
            with pytest.raises(MeasurementError, match=r"operator: expected products .*Multiply"):
                run(lambda v, a=a: a @ v, a[:1], SIZE)


# --- every estimator of an operator, on every kind of broken operator

OPERATOR_ESTIMATORS: dict[str, Callable[..., Any]] = {
    "top_eigenpairs": lambda f, like, n: top_eigenpairs(f, like, n, 1),
    "lanczos_quadrature": lambda f, like, n: lanczos_quadrature(f, like, n, vectors=2, steps=4),
    "trace_estimates": lambda f, like, n: trace_estimates(f, like, n, 3),
    "trace_estimates, exact": lambda f, like, n: trace_estimates(f, like, n, 1000),
    "signal_spectrum": lambda f, like, n: signal_spectrum(f, torch.ones(n).to(like), steps=4),
}
every_estimator = pytest.mark.parametrize("run", OPERATOR_ESTIMATORS.values(), ids=OPERATOR_ESTIMATORS.keys())
LIKE = torch.zeros(1, dtype=torch.float64)


@every_estimator
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_operators_that_are_not_finite_are_refused(run: Callable[..., Any], bad: float) -> None:
    with pytest.raises(MeasurementError, match=r"operator: expected finite products; got .* Check"):
        run(lambda v: torch.full_like(v, bad), LIKE, 12)
    calls = []

    def later(v: Tensor) -> Tensor:
        """Finite at first, one bad entry from the second product on."""
        calls.append(1)
        found = matrix(POWER_LAW[:12]) @ v
        if len(calls) > 1:
            found[0, -1] = bad
        return found

    if (
        run is not OPERATOR_ESTIMATORS["trace_estimates, exact"]
        and run is not OPERATOR_ESTIMATORS["trace_estimates"]
    ):
        with pytest.raises(MeasurementError, match="operator: expected finite products"):
            run(later, LIKE, 12)


@every_estimator
def test_operators_that_are_not_square_are_refused(run: Callable[..., Any]) -> None:
    for rows in (11, 13):
        with pytest.raises(InputError, match=r"operator: expected products of shape \[12, \d+\].*; got"):
            run(lambda v, rows=rows: torch.ones(rows, 12, dtype=torch.float64) @ v, LIKE, 12)
    with pytest.raises(InputError, match="operator: expected products of shape"):
        run(lambda v: v[:, :1].squeeze(1), LIKE, 12)
    with pytest.raises(InputError, match="operator: expected products"):
        run(lambda v: v.numpy(), LIKE, 12)


@every_estimator
def test_complex_integer_and_half_operators_are_refused(run: Callable[..., Any]) -> None:
    for dtype in (torch.complex128, torch.int64, torch.bfloat16, torch.float16):
        with pytest.raises(
            InputError, match=r"(like|signal): expected a tensor of float32 or float64; got torch"
        ):
            run(lambda v: v, torch.zeros(1).to(dtype), 12)
    with pytest.raises(InputError, match="operator: expected products of"):
        run(lambda v: v.to(torch.complex128) * 1j, LIKE, 12)


@every_estimator
@pytest.mark.parametrize("size", [0, -1, 2.5, True, "9"])
def test_sizes_that_are_no_size_are_refused(run: Callable[..., Any], size: Any) -> None:
    if run is not OPERATOR_ESTIMATORS["signal_spectrum"]:
        with pytest.raises(InputError, match="size: expected an integer of at least 1"):
            run(lambda v: v, LIKE, size)


@every_estimator
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_by_one_and_zero_operators(run: Callable[..., Any], dtype: torch.dtype) -> None:
    like = torch.zeros(1, dtype=dtype)
    for n, factor in ((1, 3.0), (1, 0.0), (12, 0.0)):
        found = run(lambda v, factor=factor: v * factor, like, n)
        for value in numbers(found):
            assert np.isfinite(value).all()


def numbers(result: Any) -> list[np.ndarray]:
    """All numbers of a result; those of an interval that does not exist are left out."""
    if isinstance(result, spectra.TraceEstimates):
        return [
            np.array([i.value, i.low, i.high])
            for i in (result.trace, result.square, result.participation_ratio)
        ]
    if isinstance(result, spectra.Quadrature):
        rank = entropy_effective_rank(result)
        return [result.nodes, result.weights, np.array([rank.value, rank.low, rank.high])]
    if isinstance(result, spectra.SignalSpectrum):
        return [*result.lower, *result.upper]
    return [result.values.numpy(), result.residuals.numpy()]


@pytest.mark.parametrize(
    "signal",
    [
        torch.tensor([1.0, float("nan")]),
        torch.tensor([float("inf"), 1.0]),
        torch.zeros(0),
        torch.ones(2, 2),
        torch.tensor(1.0),
        [1.0, 2.0],
    ],
)
def test_signals_that_are_none_are_refused(signal: Any) -> None:
    with pytest.raises(InputError, match="signal: expected"):
        signal_spectrum(lambda v: v, signal)


def test_known_pairs_must_fit() -> None:
    a = matrix(POWER_LAW)
    known = top_eigenpairs(lambda v: a @ v, a[:1], SIZE, 3)
    with pytest.raises(InputError, match="known: expected eigenpairs of an operator of size 50"):
        lanczos_quadrature(lambda v: v, a[:1], 50, known=known)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"max_products": 0}, "max_products"),
    ],
)
def test_bad_options_of_block_lanczos_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        top_eigenpairs(lambda v: v, LIKE, 5, 2, **options)


def test_bad_options_of_densities_are_refused() -> None:
    rule = lanczos_quadrature(lambda v: v, LIKE, 5)
    for grid, width in ((np.array([np.nan]), 0.1), (np.zeros((2, 2)), 0.1), (np.zeros(2), 0.0)):
        with pytest.raises(InputError):
            density(rule, grid, width)


# --- every estimator of a matrix in memory, on every kind of broken matrix

BROKEN = {
    "NaN": np.full((4, 4), np.nan),
    "infinite": np.diag([1.0, np.inf, 1.0, 1.0]),
    "not square": np.ones((4, 3)),
    "empty": np.ones((0, 0)),
    "text": np.array([["a"]]),
    "complex": np.eye(4) * 1j,
}
MATRIX_ESTIMATORS: dict[str, Callable[..., Any]] = {
    "eigenvalues": spectra.eigenvalues,
    "eigenpairs": spectra.eigenpairs,
    "participation_ratio_pairs": spectra.participation_ratio_pairs,
    "rarefaction": spectra.rarefaction,
    **{
        f"subsample_interval, {name}": lambda m, name=name: spectra.subsample_interval(name, m)
        for name in spectra.STATISTICS
    },
    **{f"evaluate, {name}": lambda m, name=name: spectra.evaluate(name, m) for name in spectra.STATISTICS},
    "contrast_interval": lambda m: spectra.contrast_interval(
        "trace", np.stack([m, m]), lambda s: s[..., 0] - s[..., 1]
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("run", MATRIX_ESTIMATORS.values(), ids=MATRIX_ESTIMATORS.keys())
def test_broken_matrices_are_refused_in_a_line(run: Callable[..., Any], kind: str) -> None:
    with pytest.raises(InputError):
        run(BROKEN[kind])


@pytest.mark.parametrize("run", MATRIX_ESTIMATORS.values(), ids=MATRIX_ESTIMATORS.keys())
def test_small_and_zero_matrices_give_a_value_or_a_line(run: Callable[..., Any]) -> None:
    for m in (np.array([[2.0]]), np.zeros((1, 1)), np.zeros((6, 6)), np.eye(6)):
        try:
            run(m)
        except NtkdiagError:
            continue


RANKS = [
    spectra.effective_rank,
    spectra.participation_ratio,
    spectra.stable_rank,
    spectra.numerical_rank,
    spectra.top_k_energy,
    spectra.decay_exponent,
]


@pytest.mark.parametrize("rank", RANKS, ids=lambda rank: rank.__name__)
@pytest.mark.parametrize(
    "values", [np.array([1.0, np.nan]), np.array([np.inf, 1.0]), np.zeros(0), np.array(1.0), np.array(["a"])]
)
def test_ranks_of_values_that_are_no_spectrum_are_refused(rank: Callable[..., Any], values: Any) -> None:
    with pytest.raises(InputError, match="eigenvalues: expected"):
        rank(values)


def test_swapped_arguments_are_refused_in_a_line() -> None:
    for call in (
        lambda: spectra.subsample_interval(np.eye(8), "trace"),
        lambda: spectra.subsample_intervals(np.eye(8), ["trace"]),
        lambda: spectra.evaluate(np.eye(8), "trace"),
        lambda: spectra.contrast_interval(np.eye(8), "trace", lambda s: s[..., 0]),
    ):
        with pytest.raises(InputError, match=r"(statistic|matrices): expected .*; got"):
            call()


def test_the_effective_rank_of_single_precision_operators_of_tiny_scale() -> None:
    """A full kernel of outputs of scale 1e-13 has entries of 1e-26, whose squares underflow in float32."""
    a = scaled(torch.float32, 1e-26)
    truth = effective_rank(POWER_LAW)
    known = top_eigenpairs(lambda v: a @ v, a[:1], SIZE, 16)
    found = entropy_effective_rank(lanczos_quadrature(lambda v: a @ v, a[:1], SIZE, known=known))
    assert found.value == pytest.approx(truth, rel=0.05)
    ratio = trace_estimates(lambda v: a @ v, a[:1], SIZE, 16).participation_ratio
    assert ratio.value == pytest.approx(POWER_LAW.sum() ** 2 / (POWER_LAW**2).sum(), rel=0.05)
