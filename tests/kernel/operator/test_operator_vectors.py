"""Vectors, inputs and outputs that the operator cannot take, each refused in a line, and unusual ones that it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kernel_networks import perceptron
from networks.case import Net
from operator_truth import image_denoiser, images, jacobian, normal
from references import relative_error
from torch import Tensor, nn
from torch.nn import functional

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel import NTKOperator

X = normal(3, 3)
Product = Callable[[NTKOperator, Any], Any]
PRODUCTS: dict[str, Product] = {
    "apply": lambda operator, v: operator.apply(v),
    "matvec": lambda operator, v: operator @ v,
    "jacobian": lambda operator, v: operator.jacobian @ v,
    "adjoint": lambda operator, v: operator.jacobian.T @ v,
    "gauss_newton": lambda operator, v: operator.gauss_newton @ v,
}


def vector(operator: NTKOperator, product: str) -> Tensor:
    size = operator.jacobian.shape[1] if product in ("jacobian", "gauss_newton") else operator.shape[1]
    return normal(size, seed=1)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("array", [False, True])
def test_complex_vectors_are_refused(product: str, array: bool) -> None:
    operator = NTKOperator.of(perceptron(), (X,))
    v = vector(operator, product) + 0j
    with pytest.raises(InputError, match=r"vectors: expected real numbers; got complex numbers\. Apply"):
        PRODUCTS[product](operator, v.numpy() if array or product != "apply" else v)


@pytest.mark.parametrize("wrong", [np.array(["a"] * 12), np.array([None] * 12), "a", None, {1: 2}])
def test_what_holds_no_numbers_is_refused(wrong: Any) -> None:
    operator = NTKOperator.of(perceptron(), (X,))
    with pytest.raises(InputError, match="vectors: expected a tensor or an array of real numbers; got "):
        operator.apply(wrong)


def test_real_numbers_of_any_type_are_taken() -> None:
    operator = NTKOperator.of(perceptron(), (X,))
    expected = operator.apply(torch.ones(12).double())
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        assert torch.equal(operator.apply(torch.ones(12, dtype=dtype)), expected)
    assert torch.equal(operator.apply(np.ones(12)), expected)
    assert torch.equal(operator.apply([1] * 12), expected)
    assert torch.equal(operator.apply(torch.ones(12).double().requires_grad_()), expected)
    np.testing.assert_allclose(operator @ np.ones(12, dtype=np.int32), expected.numpy(), rtol=1e-14)
    assert operator.apply(torch.ones(12, 0)).shape == (12, 0)


def test_vectors_made_in_inference_mode_are_taken() -> None:
    operator = NTKOperator.of(perceptron(), (X,))
    expected, denoiser = operator.apply(torch.ones(12).double()), image_denoiser()
    with torch.inference_mode():
        ones = torch.ones(12).double()
        inside = NTKOperator(denoiser, *images(3))
        assert torch.equal(operator.apply(ones), expected)
        assert np.isfinite(inside @ np.ones(48)).all()
    assert torch.equal(operator.apply(ones), expected)


def test_complex_inputs_and_parameters_are_refused() -> None:
    x, levels = images(3)
    with pytest.raises(InputError, match="x: expected real numbers; got complex numbers"):
        NTKOperator(image_denoiser(), x + 0j, levels)
    net = Net(lambda m, x: (x * m.spectrum).real, spectrum=torch.ones(3, dtype=torch.complex128))
    with pytest.raises(InputError, match="spectrum: expected real floating-point parameters; got complex128"):
        NTKOperator.of(net, (X,))


def test_an_output_of_one_number_without_a_dimension() -> None:
    net = Net(lambda m, x: m.layer(x).tanh().sum(1), layer=nn.Linear(3, 4).double())
    j = jacobian(net, (X,))
    operator = NTKOperator.of(net, (X,), rows=[0, 2])
    assert operator.shape == (2, 3)
    truth = j[[0, 2]] @ j.T
    assert relative_error(operator.apply(torch.eye(3)), truth) < 1e-12
    assert relative_error(torch.from_numpy(operator.jacobian @ np.eye(16)), j[[0, 2]]) < 1e-12


def test_an_output_without_numbers_is_refused() -> None:
    net = Net(lambda m, x: m.layer(x)[:, :0], layer=nn.Linear(3, 4).double())
    with pytest.raises(InputError, match=r"module output: expected numbers in each row; got shape \(1, 0\)"):
        NTKOperator.of(net, (X,))


def test_parameters_of_several_dtypes() -> None:
    """Vectors have the widest of them."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.wide(m.narrow(x.float()).tanh().double())

    net = Net(forward, narrow=nn.Linear(3, 4), wide=nn.Linear(4, 2).double())
    operator = NTKOperator.of(net, (X,))
    assert operator.like.dtype == torch.float64
    j = jacobian(net, (X,)).double()
    v = normal(6)
    assert relative_error(operator.apply(v), j @ (j.T @ v)) < 1e-6
    u = normal(j.shape[1])
    assert relative_error(torch.from_numpy(operator.jacobian @ u.numpy()), j @ u) < 1e-6


@pytest.mark.parametrize("how", ["given", "by name", "derived", "torch"])
def test_the_row_of_a_table_that_stands_for_padding_is_constant_in_both_products(how: str) -> None:
    """Forward mode would move it. Only the sample in the middle has one, so that the check does not see it."""

    def forward(m: Net, x: Tensor) -> Tensor:
        if how == "given":
            return functional.embedding(x, m.table, 1).flatten(1)
        if how == "by name":
            return functional.embedding(x, weight=m.table, padding_idx=-4).flatten(1)
        if how == "torch":
            return torch.embedding(m.table, x, 1).flatten(1)
        return functional.embedding(x, m.table @ m.mix, padding_idx=1).flatten(1)

    x = torch.tensor([[0, 2], [1, 3], [4, 0]])
    net = Net(forward, table=normal(5, 2), mix=normal(2, 2, seed=1))
    j = jacobian(net, (x,))
    operator = NTKOperator.of(net, (x,))
    assert operator.method == "forward mode"
    u = normal(j.shape[1], seed=2)
    assert relative_error(torch.from_numpy(operator.jacobian @ u.numpy()), j @ u) < 1e-12


def test_parameters_that_are_replaced_meanwhile_are_refused() -> None:
    net = perceptron()
    operator = NTKOperator.of(net, (X,))
    net[0].weight.data = net[0].weight.data * 2
    with pytest.raises(RuntimeError, match="parameters that stay as they are"):
        operator @ np.ones(12)


@pytest.mark.parametrize("scale", [1e-24, 1e-14, 1e-8, 1e15, 1e21])
def test_outputs_of_any_scale_are_right_or_refused(scale: float) -> None:
    """In float32, products of 1e-48 underflow and those of 1e42 overflow."""
    net = Net(lambda m, x: m.out(m.first(x).tanh()) * scale, first=nn.Linear(3, 6), out=nn.Linear(6, 4))
    if scale in (1e-24, 1e21):
        words = r"operator: expected products within the range of torch\.float32; got about .*or use float64"
        with pytest.raises(MeasurementError, match=words):
            NTKOperator.of(net, (X.float(),))
        return
    v = normal(12)
    found = NTKOperator.of(net, (X.float(),)).apply(v).double()
    j = jacobian(net.double(), (X,))
    assert relative_error(found / scale**2, j @ (j.T @ v) / scale**2) < 1e-4
