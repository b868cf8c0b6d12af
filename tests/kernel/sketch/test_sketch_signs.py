"""The random signs of a sketch, and what follows from them: unbiased entries, and their variance in closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from kernel_networks import normal
from torch import Tensor, nn

from ntkdiag.errors import InputError
from ntkdiag.kernel.sketch import Projection, Sketch, matrix_of, sketch_of


def parameter(*shape: int, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=dtype))


def signs(sketch: Sketch, name: str = "w", probe: int = 0, shape: tuple[int, ...] = (300, 200)) -> Tensor:
    projection = sketch.of(name, parameter(*shape), probe)
    assert projection.left is not None and projection.right is not None
    return torch.cat([projection.left.flatten(), projection.right.flatten()]) * math.sqrt(sketch.size)


def test_entries_are_signs_over_the_root_of_k() -> None:
    found = signs(Sketch(16, 0))
    assert found.shape == (500 * 16,)
    torch.testing.assert_close(found.abs(), torch.ones_like(found))
    assert abs(float(found.mean())) < 4 / math.sqrt(len(found))


def test_the_same_seed_gives_the_same_bytes_and_all_else_gives_others() -> None:
    found = signs(Sketch(16, 0))
    assert torch.equal(found, signs(Sketch(16, 0)))
    others = [signs(Sketch(16, 1)), signs(Sketch(16, 0), probe=1), signs(Sketch(16, 0), name="v")]
    for one, other in itertools.combinations([found, *others], 2):
        assert abs(float((one * other).mean())) < 4 / math.sqrt(len(found))
    left, right = found[: 200 * 16], found[300 * 16 :]
    assert abs(float((left * right).mean())) < 4 / math.sqrt(len(right))


@pytest.mark.parametrize(
    "shape, matrix",
    [
        ((5, 7), (5, 7)),
        ((1, 5, 7), (5, 7)),
        ((64, 32, 3, 3), (64, 288)),
        ((3, 128, 3, 3), (384, 9)),
        ((5,), (5, 1)),
        ((1, 5, 1), (5, 1)),
        ((), (1, 1)),
        ((0, 3), (0, 3)),
    ],
)
def test_the_matrix_of_a_shape(shape: tuple[int, ...], matrix: tuple[int, int]) -> None:
    assert matrix_of(torch.Size(shape)) == matrix


@pytest.mark.parametrize(
    "shape, length",
    [
        ((40, 30), 64),
        ((40, 8), 64),
        ((40, 3), 24),
        ((8, 8), 64),
        ((5, 9), 45),
        ((100,), 100),
        ((1, 70, 2), 16),
    ],
)
def test_lengths_of_rows(shape: tuple[int, ...], length: int) -> None:
    """A matrix becomes k × k; a side of at most k stays, and so do vectors and at most k² elements."""
    sketch, weight = Sketch(8, 0), parameter(*shape)
    gradients = normal(3, *shape)
    rows = sketch.of("w", weight, 0).rows(gradients)
    assert rows.shape == (3, length) and sketch.length(weight.shape) == length
    if sketch.keeps_whole(weight.shape):
        assert torch.equal(rows, gradients.flatten(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_are_in_float32_at_least(dtype: torch.dtype) -> None:
    weight = parameter(30, 20, dtype=dtype)
    rows = Sketch(4, 0).of("w", weight, 0).rows(normal(2, 30, 20, dtype=dtype))
    assert rows.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


P, Q = 3, 2
ONE, OTHER = normal(P, Q, seed=1), normal(P, Q, seed=2)


def product(left: Tensor, right: Tensor) -> float:
    rows = Projection((P, Q), torch.float64, left, right).rows(torch.stack([ONE, OTHER]))
    return float(rows[0] @ rows[1])


def variance(one: Tensor, other: Tensor, size: int) -> float:
    """Var ⟨Sᵀ G_i R, Sᵀ G_j R⟩ for signs: S Sᵀ = I + E with zeros on the diagonal of E and E E_ab² = 1/k elsewhere."""

    def of(matrix: Tensor) -> float:
        return float(matrix.square().sum() + (matrix @ matrix).trace() - 2 * matrix.diagonal().square().sum())

    single = of(one @ other.T) + of(other.T @ one)
    # both: Σ_{a≠b} E_ab (G_i F G_jᵀ)_ba, whose square is averaged over F entry by entry
    double = 0.0
    for c, d in itertools.combinations(range(one.shape[1]), 2):
        f = torch.zeros(one.shape[1], one.shape[1], dtype=one.dtype)
        f[c, d] = f[d, c] = 1
        double += of(one @ f @ other.T)
    return single / size + double / size**2


def normal_bound(one: Tensor, other: Tensor, size: int) -> float:
    """The variance for normal entries, which `gram_of` names."""
    m, n = one @ other.T, one.T @ other
    sizes = one.square().sum() * other.square().sum() + (one * other).sum() ** 2
    inner = (1 + 1 / size) * (m.square().sum() + n.square().sum()) + 2 * (m @ m).trace() + sizes / size
    return float(inner / size)


def test_over_all_signs_the_mean_is_the_product_and_the_variance_its_closed_form() -> None:
    """k = 1: all 2⁵ patterns, without a random number."""
    values = []
    for pattern in itertools.product([-1.0, 1.0], repeat=P + Q):
        entries = torch.tensor(pattern, dtype=torch.float64)[:, None]
        values.append(product(entries[:P], entries[P:]))
    found = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(found.mean(), (ONE * OTHER).sum())
    assert float(found.var(correction=0)) == pytest.approx(variance(ONE, OTHER, 1), rel=1e-12)


@pytest.mark.parametrize("size", [2, 5])
def test_over_seeds_mean_and_variance_are_those_of_the_closed_form(size: int) -> None:
    one, other, count = normal(14, 12, seed=3), normal(14, 12, seed=4) + normal(14, 12, seed=3), 4000
    weight = parameter(14, 12)
    pair = torch.stack([one, other])
    rows = torch.stack([Sketch(size, seed).of("w", weight, 0).rows(pair) for seed in range(count)])
    found = (rows[:, 0] * rows[:, 1]).sum(1)
    expected = variance(one, other, size)
    assert expected < normal_bound(one, other, size)
    assert abs(float(found.mean() - (one * other).sum())) < 4 * math.sqrt(expected / count)
    excess = float(((found - found.mean()) ** 4).mean() / found.var() ** 2)
    assert abs(float(found.var()) / expected - 1) < 4 * math.sqrt((excess - 1) / count)


def test_normal_entries_have_the_variance_that_is_named() -> None:
    size, count = 3, 20000
    one, other = normal(6, 5, seed=3), normal(6, 5, seed=4) + normal(6, 5, seed=3)
    left = normal(count, 6, size, seed=5) / math.sqrt(size)
    right = normal(count, 5, size, seed=6) / math.sqrt(size)
    rows = [(left.mT @ each @ right).flatten(1) for each in (one, other)]
    found = (rows[0] * rows[1]).sum(1)
    excess = float(((found - found.mean()) ** 4).mean() / found.var() ** 2)
    assert abs(float(found.var()) / normal_bound(one, other, size) - 1) < 4 * math.sqrt((excess - 1) / count)


# --- preconditioners


def test_a_preconditioner_of_rows_times_columns_scales_the_gradient_before_its_sketch() -> None:
    u, v = normal(9, seed=1).exp(), normal(3, seed=2).exp()
    weights = {"w": parameter(9, 3), "b": parameter(4)}
    inverse = {"w": u[:, None] * v, "b": normal(4, seed=3).exp()}
    sketch = sketch_of(4, 0, weights, inverse)
    gradients = {"w": normal(2, 9, 3), "b": normal(2, 4)}
    plain = Sketch(4, 0)
    for name, rows in gradients.items():
        scaled = plain.of(name, weights[name], 0).rows(rows * inverse[name].sqrt())
        torch.testing.assert_close(sketch.of(name, weights[name], 0).rows(rows), scaled)


def test_a_preconditioner_that_does_not_factor_is_refused_by_name() -> None:
    weights = {"b": parameter(50), "small": parameter(4, 4), "blocks.w": parameter(9, 5)}
    inverse = {name: normal(*p.shape).exp() for name, p in weights.items()}
    with pytest.raises(
        InputError, match=r"preconditioner of blocks\.w: expected one factor for each row times"
    ):
        sketch_of(4, 0, weights, inverse)
    sketch_of(4, 0, {n: weights[n] for n in ("b", "small")}, {n: inverse[n] for n in ("b", "small")})


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_k_is_a_positive_integer(size: int) -> None:
    with pytest.raises(InputError, match="sketch: expected an integer of at least 1"):
        sketch_of(size, 0, {}, {})
