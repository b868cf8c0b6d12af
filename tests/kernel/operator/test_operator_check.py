"""The check of the operator: faults planted in its products are found, and it is right all the same, or refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES
from kernel_networks import normal, shaken
from networks.case import Net
from operator_truth import jacobian
from references import relative_error
from torch import Tensor, nn

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel import NTKOperator
from ntkdiag.kernel.operator import network as network_module
from ntkdiag.kernel.operator import operator as operator_module
from ntkdiag.kernel.operator.network import Network, Tangent
from ntkdiag.kernel.operator.products import (
    DOUBLE_BACKWARD,
    FORWARD,
    PLAIN,
    PULLS,
    PUSHES,
    REVERSE,
    ROWS,
)

Patch = pytest.MonkeyPatch
Faults = dict[str, Callable[[Patch], None]]


def network() -> nn.Module:
    """Tokens; a square weight, one that is used twice, one that has two names, and a gain."""

    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = m.twice(m.twice(m.square(x)).tanh()).tanh()
        return m.tied(tokens) * m.gain

    torch.manual_seed(0)  # the same network in each call
    parts = {name: nn.Linear(4, 4) for name in ("square", "twice", "tied")}
    net = shaken(Net(forward, gain=normal(4, seed=9), **parts))
    net.tied.weight = net.square.weight
    return net.eval()


NAMES = ["gain", "square.weight", "square.bias", "twice.weight", "twice.bias", "tied.bias"]
INPUTS = (normal(5, 3, 4),)


def in_push(
    change: Callable[[Tensor], Tensor], methods: tuple[str, ...] = (FORWARD,)
) -> Callable[[Patch], None]:
    """A change of J u by some methods."""

    def plant(patch: Patch) -> None:
        for name in methods:
            way = PUSHES[name]
            patch.setitem(PUSHES, name, lambda net, part, u, way=way: change(way(net, part, u)))

    return plant


def of_tangent(change: Callable[[Tangent], Tangent]) -> Callable[[Patch], None]:
    """A change of u before J u by forward mode."""

    def plant(patch: Patch) -> None:
        way = PUSHES[FORWARD]
        patch.setitem(PUSHES, FORWARD, lambda net, part, u: way(net, part, change(u)))

    return plant


def in_pull(
    change: Callable[[Tangent], Tangent], methods: tuple[str, ...] = (REVERSE,)
) -> Callable[[Patch], None]:
    """A change of Jᵀ v by some methods."""

    def plant(patch: Patch) -> None:
        for name in methods:
            way = PULLS[name]
            patch.setitem(PULLS, name, lambda net, part, v, way=way: change(way(net, part, v)))

    return plant


def at(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tangent], Tangent]:
    """A change of the part of one parameter."""
    return lambda parts: tuple(change(p) if n == name else p for n, p in zip(NAMES, parts, strict=True))


def samples_swapped(patch: Patch) -> None:
    way = PULLS[REVERSE]

    def swapped(net: Network, part: Tensor, v: Tensor) -> Tangent:
        return way(net, part, v.flip(0))

    patch.setitem(PULLS, REVERSE, swapped)


def tied_weight_counted_once(patch: Patch) -> None:
    """Only the first name of a weight is replaced."""
    patch.setattr(
        network_module, "functional_call", partial(network_module.functional_call, tie_weights=False)
    )


IN_PUSH: Faults = {
    "a sign": in_push(torch.neg),
    "a scale of 1/T": in_push(lambda out: out / out.shape[1]),
    "tokens in another order": in_push(lambda out: out.roll(1, 1)),
    "samples in another order": in_push(lambda out: out.roll(1, 0)),
    "a parameter left out": of_tangent(at("twice.bias", torch.zeros_like)),
    "a transposed layout": of_tangent(at("square.weight", lambda u: u.T.contiguous())),
    "one row of a weight left out": of_tangent(
        at("square.weight", lambda u: u.index_fill(0, torch.tensor(2), 0))
    ),
    "what is not a number": in_push(lambda out: out * torch.nan),
}
IN_PULL: Faults = {
    "a sign": in_pull(at("twice.weight", torch.neg)),
    "a parameter left out": in_pull(at("tied.bias", torch.zeros_like)),
    "a scale of 1/T": in_pull(at("square.weight", lambda g: g / 3)),
    "a transposed layout": in_pull(at("twice.weight", lambda g: g.T.contiguous())),
    "samples in another order": samples_swapped,
    "a tied weight counted once": tied_weight_counted_once,
    "what is not a number": in_pull(at("gain", lambda g: g * torch.nan)),
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def built(dtype: torch.dtype) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return network().to(dtype), tuple(tensor.to(dtype) for tensor in INPUTS)


def require_right(operator: NTKOperator, dtype: torch.dtype) -> None:
    """Both products agree with the explicit Jacobian."""
    j = jacobian(network(), INPUTS)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4}.get(dtype, 0.1)
    u, v = normal(j.shape[1], seed=3), normal(j.shape[0], seed=4)
    for found, truth in ((operator.jacobian @ u.numpy(), j @ u), (operator.jacobian.T @ v.numpy(), j.T @ v)):
        assert relative_error(torch.from_numpy(found), truth) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", IN_PUSH)
def test_a_fault_in_a_method_for_j_u_is_found_and_the_next_method_taken(
    fault: str, dtype: torch.dtype, monkeypatch: Patch
) -> None:
    if (
        dtype == torch.bfloat16 and fault == "one row of a weight left out"
    ):  # no larger than rounding may be there
        return
    IN_PUSH[fault](monkeypatch)
    operator = NTKOperator.of(*built(dtype))
    assert (operator.method, operator.adjoint_method) == (DOUBLE_BACKWARD, REVERSE)
    assert operator.passed_over["J u by forward mode"].startswith("differs from plain autograd")
    require_right(operator, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", IN_PULL)
def test_a_fault_in_reverse_mode_is_found_and_plain_autograd_taken(
    fault: str, dtype: torch.dtype, monkeypatch: Patch
) -> None:
    IN_PULL[fault](monkeypatch)
    operator = NTKOperator.of(*built(dtype))
    assert operator.adjoint_method == PLAIN
    assert operator.passed_over["Jᵀ v by reverse mode"].startswith("differs from plain autograd")
    require_right(operator, dtype)


def test_one_fault_in_all_methods_for_j_u_but_the_last(monkeypatch: Patch) -> None:
    faulty = (FORWARD, DOUBLE_BACKWARD, ROWS)
    in_push(lambda out: out / 3, faulty)(monkeypatch)
    operator = NTKOperator.of(*built(torch.float64))
    assert operator.method == PLAIN
    assert list(operator.passed_over) == [f"J u by {name}" for name in faulty]
    require_right(operator, torch.float64)


def test_faults_in_every_method_are_an_error(monkeypatch: Patch) -> None:
    in_push(torch.neg, tuple(PUSHES))(monkeypatch)
    words = r"operator: expected a way to compute J u that agrees with plain autograd for two samples; got forward mode diff"
    with pytest.raises(MeasurementError, match=words):
        NTKOperator.of(*built(torch.float64))
    monkeypatch.undo()
    in_pull(at("gain", torch.neg), tuple(PULLS))(monkeypatch)
    with pytest.raises(MeasurementError, match=r"expected a way to compute Jᵀ v that agrees"):
        NTKOperator.of(*built(torch.float64))


# --- what joins the two products


def kept_outputs_permuted(patch: Patch) -> None:
    original = operator_module.NTKOperator._kept_of
    patch.setattr(
        operator_module.NTKOperator, "_kept_of", lambda self, outputs: original(self, outputs.roll(1, -1))
    )


def preconditioner_forgotten(patch: Patch) -> None:
    original = operator_module.NTKOperator._product

    def product(self: Any, *args: Any) -> Tensor:
        self._scale, kept = (), self._scale
        try:
            return original(self, *args)
        finally:
            self._scale = kept

    patch.setattr(operator_module.NTKOperator, "_product", product)


def columns_taken_for_rows(patch: Patch) -> None:
    original = operator_module.NTKOperator._product
    patch.setattr(
        operator_module.NTKOperator,
        "_product",
        lambda self, v, columns, rows: original(self, v, rows, columns),
    )


def scale_forgotten(patch: Patch) -> None:
    original = operator_module.NTKOperator._product
    patch.setattr(operator_module.NTKOperator, "_product", lambda self, *args: original(self, *args) / 12)


@pytest.mark.parametrize(
    "fault", [kept_outputs_permuted, preconditioner_forgotten, columns_taken_for_rows, scale_forgotten]
)
def test_a_fault_in_the_product_of_both_is_an_error(
    fault: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    net, scales = network(), {}
    for name, parameter in net.named_parameters():
        scales[name] = 0.1 + normal(*parameter.shape, seed=5).abs()
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1:, 1:3] = True
    options: dict[str, Any] = {"preconditioner": scales, "rows": [0, 2], "columns": [1, 4], "outputs": mask}
    fault(monkeypatch)
    with pytest.raises(
        MeasurementError, match=r"two samples; got a product that differs from plain autograd by "
    ):
        NTKOperator.of(net, INPUTS, **options)
    monkeypatch.undo()
    j = jacobian(net, INPUTS).reshape(5, 12, -1)[:, mask.flatten()]
    p = torch.cat([scale.flatten() for scale in scales.values()])
    truth = (j[[0, 2]].flatten(0, 1) / p) @ j[[1, 4]].flatten(0, 1).T
    assert relative_error(NTKOperator.of(net, INPUTS, **options).apply(torch.eye(8)), truth) < 1e-12


# --- when nothing is wrong, and when nothing is compared


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_passed_over_where_nothing_is_wrong(dtype: torch.dtype) -> None:
    operator = NTKOperator.of(*built(dtype))
    assert (operator.method, operator.adjoint_method, operator.passed_over) == (FORWARD, REVERSE, {})


def test_without_the_check_the_two_products_are_compared_with_each_other(monkeypatch: Patch) -> None:
    calls: list[int] = []
    plain = Network.as_it_stands
    monkeypatch.setattr(Network, "as_it_stands", lambda self: (calls.append(1), plain(self))[1])
    module, inputs = built(torch.float64)
    in_push(torch.neg)(monkeypatch)
    operator = NTKOperator.of(module, inputs, check=False)
    assert operator.method == DOUBLE_BACKWARD
    assert not calls
    require_right(operator, torch.float64)


def test_only_the_check_sees_a_block_that_runs_again_in_the_backward() -> None:
    module, inputs = CASES["recompute_first"](seed=2)
    j = jacobian(module, inputs)
    v = normal(len(j))
    errors = {
        check: relative_error(NTKOperator.of(module, inputs, check=check).apply(v), j @ (j.T @ v))
        for check in (True, False)
    }
    assert errors[True] < 1e-12
    assert errors[False] > 1e-3


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_sample_that_depends_on_its_batch_only_in_larger_ones_is_refused_at_the_first_product(
    chunk: int | None,
) -> None:
    net = Net(lambda m, x: m.layer(x - x.mean(0) * (len(x) > 2)), layer=nn.Linear(4, 2).double())
    operator = NTKOperator.of(net, (normal(5, 4),), chunk=chunk)
    if chunk is None:
        with pytest.raises(MeasurementError, match="expected each sample's values to be its own"):
            operator @ np.ones(10)
    else:
        assert np.isfinite(operator @ np.ones(10)).all()
