"""The effective-rank family against closed forms, at edge sizes, in stacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from spectra_populations import POWER_LAW, features, gram, slow_pairs, slow_statistics, with_spectrum

from ntkdiag.errors import InputError
from ntkdiag.kernel import Gram, gram_of
from ntkdiag.spectra import (
    STATISTICS,
    decay_exponent,
    effective_rank,
    eigenvalues,
    evaluate,
    numerical_rank,
    participation_ratio,
    participation_ratio_pairs,
    stable_rank,
    top_k_energy,
)
from ntkdiag.spectra.dense import rank_formulas
from ntkdiag.spectra.dense.named_statistics import evaluate_all

RANKS: list[Callable] = [effective_rank, participation_ratio, stable_rank, numerical_rank]
FAMILY: list[Callable] = [*RANKS, top_k_energy, decay_exponent]
spectra = arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1e3)).map(lambda e: np.sort(e)[::-1])


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("size", [1, 2, 50])
def test_flat_spectrum_has_full_rank_and_one_direction_has_rank_one(rank: Callable, size: int) -> None:
    assert rank(np.full(size, 0.3)) == pytest.approx(size)
    assert rank(np.append(0.3, np.zeros(size - 1))) == pytest.approx(1)
    assert rank(np.zeros(size)) == 0


def test_closed_forms_of_an_uneven_spectrum() -> None:
    values = np.array([0.5, 0.25, 0.125, 0.125])
    assert effective_rank(values) == pytest.approx(2**1.75)  # entropy of 1.75 bits
    assert participation_ratio(values) == pytest.approx(1 / (0.25 + 0.0625 + 2 * 0.015625))
    assert stable_rank(values) == pytest.approx(2)
    assert top_k_energy(values, 2) == pytest.approx(0.75)
    assert top_k_energy(values, 9) == pytest.approx(1)


@given(spectra)
def test_ranks_are_ordered(values: np.ndarray) -> None:
    """Rényi entropies fall with their order, so 0 ≤ stable ≤ participation ≤ effective ≤ N."""
    slack = 1 + 1e-9
    assert stable_rank(values) <= participation_ratio(values) * slack
    assert participation_ratio(values) <= effective_rank(values) * slack
    assert effective_rank(values) <= len(values) * slack


@given(spectra, st.sampled_from([1e-150, 1e-12, 7.0, 1e150]))
def test_ranks_do_not_see_the_scale(values: np.ndarray, scale: float) -> None:
    values = np.where(values < 1e-6, 0, values)
    for rank in FAMILY:
        np.testing.assert_allclose(rank(values * scale), rank(values), rtol=1e-9, atol=1e-12)


def test_negative_eigenvalues_are_clipped_for_the_entropy_alone() -> None:
    values = np.array([3.0, 1.0, -1.0])
    assert effective_rank(values) == pytest.approx(effective_rank(np.array([3.0, 1.0])))
    assert participation_ratio(values) == pytest.approx(9 / 11)
    assert stable_rank(values) == pytest.approx(1)
    assert numerical_rank(values) == 2
    assert top_k_energy(values, 2) == pytest.approx(4 / 3)


def test_numerical_rank_counts_above_the_tolerance() -> None:
    values = np.array([1.0, 1e-3, 1e-7, 1e-16, 0.0])
    assert [int(numerical_rank(values, tol)) for tol in (1e-2, 1e-3, 1e-6, 1e-8, 0.0)] == [1, 1, 2, 3, 4]
    with pytest.raises(InputError, match=r"tol: expected a number of at least 0 and below 1; got 1"):
        numerical_rank(values, 1)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(("first", "last"), [(1, 8), (2, 20), (3, 4)])
def test_decay_exponent_of_a_power_law(exponent: float, first: int, last: int) -> None:
    assert decay_exponent(np.arange(1, 21) ** -exponent, first, last) == pytest.approx(exponent, abs=1e-12)


def test_decay_exponent_reads_only_its_range() -> None:
    values = np.arange(1, 21) ** -1.0
    broken = values.copy()
    broken[0], broken[10:] = 100, 1e-9
    assert decay_exponent(broken, 2, 10) == pytest.approx(1)
    assert decay_exponent(broken) > 1.1


def test_decay_exponent_is_undefined_beyond_the_rank() -> None:
    assert np.isnan(decay_exponent(np.ones(7)))
    assert np.isnan(decay_exponent(np.append(np.ones(7), 1e-17)))
    assert np.isnan(decay_exponent(np.zeros(8)))
    assert np.isfinite(decay_exponent(np.append(np.ones(7), 1e-9)))


@pytest.mark.parametrize(("first", "last"), [(0, 8), (4, 4), (5, 2), (1.0, 8)])
def test_decay_exponent_refuses_a_bad_range(first: int, last: int) -> None:
    with pytest.raises(InputError, match="expected an integer of at least"):
        decay_exponent(np.ones(9), first, last)


def test_top_k_refuses_zero() -> None:
    with pytest.raises(InputError, match="k: expected an integer of at least 1; got 0"):
        top_k_energy(np.ones(3), 0)
    assert np.isnan(top_k_energy(np.zeros(3)))


@pytest.mark.parametrize("rank", FAMILY)
def test_the_formulas_on_stacks_give_what_single_spectra_give(rank: Callable) -> None:
    stack = np.sort(np.random.default_rng(0).random((2, 3, 9)), -1)[..., ::-1]
    stack[0, 1] = 0
    stack[1, 2, 1:] = 0
    options = {"numerical_rank": {"tol": 1e-6}, "top_k_energy": {"k": 8}}.get(rank.__name__, {})
    of_stack = getattr(rank_formulas, rank.__name__)(stack, **options)
    np.testing.assert_allclose(of_stack, [[rank(values) for values in row] for row in stack])


# --- what has a rank, and what has none


def slow_family(values: np.ndarray) -> dict[str, float]:
    """By definition, from eigenvalues of order one, largest first."""
    share = values / values.sum()
    slope, _ = np.polyfit(np.log(np.arange(1, 9)), np.log(values[:8]), 1)
    return {
        "effective_rank": float(np.exp(-(share * np.log(share)).sum())),
        "participation_ratio": float(values.sum() ** 2 / np.square(values).sum()),
        "stable_rank": float(values.sum() / values[0]),
        "numerical_rank": len(values),
        "top_k_energy": float(values[:8].sum() / values.sum()),
        "decay_exponent": -float(slope),
    }


@pytest.mark.parametrize("rank", FAMILY)
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200, 1e-307, 1e305])
def test_a_matrix_its_eigenvalues_and_a_spectrum_have_one_rank(rank: Callable, scale: float) -> None:
    rng = np.random.default_rng(5)
    values = np.arange(1, 81) ** -0.7
    matrix = with_spectrum(values, rng) * scale
    truth = slow_family(values)[rank.__name__]
    spectrum = eigenvalues(matrix)
    for form in (
        matrix,
        torch.from_numpy(matrix),
        spectrum,
        spectrum.values,
        rng.permutation(values) * scale,
        list(np.linalg.eigvalsh(matrix)),  # numpy's order, ascending
    ):
        assert rank(form) == pytest.approx(truth, rel=1e-9)
    assert type(rank(matrix)) is (int if rank is numerical_rank else float)


def test_the_ranks_of_a_measured_kernel_and_of_float32_of_any_scale() -> None:
    torch.manual_seed(0)
    network, x = torch.nn.Linear(90, 1), torch.randn(80, 90)
    gram = gram_of(network, (x,), torch.ones(1, 1))[0]
    values = np.linalg.eigvalsh((x @ x.T + 1).double().numpy())[::-1]
    assert 40 < slow_family(values)["effective_rank"] < 70
    for rank in FAMILY:
        truth = pytest.approx(slow_family(values)[rank.__name__], rel=1e-4)
        assert rank(measured(gram)) == truth
        assert rank(gram.float() * 1e-26) == truth  # outputs of scale 1e-13
        assert rank(gram.float() * 1e30) == truth


def measured(matrix: torch.Tensor) -> Gram:
    return Gram(matrix, None, None, "trace", "streaming", {}, 1, 91, torch.zeros(len(matrix)))


@pytest.mark.parametrize("rank", FAMILY)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            np.random.default_rng(0).random((6, 6)),
            r"a symmetric matrix .*Of features J \[N, P\], pass J @ J.T",
        ),
        (
            np.ones((2, 6)),
            r"a symmetric matrix \[N, N\], its eigenvalues \[N\], a Spectrum or a Gram.*one at a time",
        ),
        (np.ones((3, 6, 6)), r"got shape \[3, 6, 6\]\. Of several kernels, pass one at a time"),
        (np.ones((1, 6)), r"got shape \[1, 6\]"),
        (np.array(3.0), r"got shape \[\]"),
        (np.zeros((0, 0)), r"got shape \[0, 0\]\.$"),
        ([], r"got shape \[0\]\.$"),
        ([[1.0, 2.0], [3.0]], "expected real numbers; got ValueError"),
        ([1.0, float("nan")], "expected finite entries; got 1 of 2"),
        (np.eye(3) * 1j, "expected real numbers; got dtype complex128"),
        (None, "expected real numbers; got NoneType"),
        ({"a": 1}, "expected real numbers; got dict"),
        ("runs/mine", "expected real numbers; got str"),
    ],
    ids=str,
)
def test_what_has_no_spectrum_is_refused_in_a_line(rank: Callable, given: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        rank(given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", STATISTICS)
def test_registered_statistics_take_stacks(name: str) -> None:
    rng = np.random.default_rng(1)
    grams = np.stack([gram(POWER_LAW, 12, rng) for _ in range(3)])
    together = evaluate(name, grams)
    assert together.shape == (3,)
    np.testing.assert_allclose(together, [evaluate(name, one) for one in grams], rtol=1e-10)


def test_registered_statistics_agree_with_slow_definitions() -> None:
    phi = features(POWER_LAW, 30, np.random.default_rng(2))
    got = evaluate_all(STATISTICS, phi @ phi.T)
    for name, value in slow_statistics(phi).items():
        assert got[name] == pytest.approx(value, rel=1e-9), name
    assert got["trace"] == pytest.approx(np.square(phi).sum() / 30)
    assert got["participation_ratio_pairs"] == pytest.approx(slow_pairs(phi @ phi.T))
    pairs = [phi[i] @ phi[j] for i in range(30) for j in range(30) if i != j]
    assert got["gradient_signal"] == pytest.approx(np.mean(pairs))
    assert got["gsnr"] == pytest.approx(np.mean(pairs) / (got["trace"] - np.mean(pairs)))


def test_unknown_statistic_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        InputError, match=r"statistic: expected one of trace.*Did you mean 'effective_rank'\?"
    ):
        evaluate("efective_rank", np.eye(3))


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("scale", [1e-9, 3.0, 1e9])
def test_order_of_samples_and_scale_of_the_kernel(name: str, scale: float) -> None:
    rng = np.random.default_rng(3)
    matrix = gram(POWER_LAW, 20, rng) + 0.1
    order = rng.permutation(20)
    before = evaluate(name, matrix)
    assert evaluate(name, matrix[np.ix_(order, order)]) == pytest.approx(before, rel=1e-9)
    factor = scale if name.endswith(("trace", "top_eigenvalue", "gradient_signal")) else 1.0
    assert evaluate(name, scale * matrix) == pytest.approx(factor * before, rel=1e-9)


def test_one_sample_zero_and_identity() -> None:
    assert effective_rank(eigenvalues(np.array([[4.0]])).values) == 1
    assert np.isnan(participation_ratio_pairs(np.array([[4.0]])))
    assert participation_ratio_pairs(np.zeros((5, 5))) == 0
    assert participation_ratio_pairs(np.eye(5)) == np.inf
    assert participation_ratio_pairs(np.outer([1, 2, 3], [1, 2, 3])) == pytest.approx(1)
    assert effective_rank(eigenvalues(np.eye(5)).values) == pytest.approx(5)
    with np.errstate(all="raise"):
        for edge in (np.zeros((3, 3)), np.eye(3), np.ones((3, 3))):
            evaluate_all(STATISTICS, edge)
