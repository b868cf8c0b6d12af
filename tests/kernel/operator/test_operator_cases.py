"""The operator against the explicit Jacobian, on every network of `cases`: each method, chunked and not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES, Case
from networks.case import DEVICE
from operator_truth import jacobian, normal
from references import relative_error
from streaming_truth import state
from torch import nn

from ntkdiag.kernel import NTKOperator
from ntkdiag.kernel.operator.linearization import Linearization
from ntkdiag.kernel.operator.products import DOUBLE_BACKWARD, FORWARD, PLAIN, REVERSE, ROWS
from ntkdiag.kernel.parameters import select_parameters

# torch warns of networks that are here on purpose: even kernels padded to "same", operations without a batching rule
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())

# Other methods replace parameters for the time of the forward, which blocks that run again in the backward do not see.
RECOMPUTED = (
    "recompute_first", "recompute_between", "recompute_twice", "recompute_attention", "recompute_shared", "nested_backward",
    "checkpoint_and_recompute",
)  # fmt: skip

NEWER = torch.__version__ >= (2, 14)

# Everything else goes by forward mode.
OTHERS = {
    **dict.fromkeys(
        (
            "encoder_without_gradient",  # forward mode does not mind torch.no_grad; reverse mode does
            "custom_function",  # functions with a backward and no jvp
            "custom_function_first",
            "scaled_gradients",
            "transform_inside",  # a jvp inside
            "weight_norm_of_the_whole",
            "weight_norm",  # operations whose forward-mode derivative is not written, or fails
            "padded_sequences",
        ),
        DOUBLE_BACKWARD,
    ),
    # differentiable once
    **dict.fromkeys(("table_bag", "table_bag_refused"), ROWS),
    # differentiable once in a vmap until torch 2.14
    **dict.fromkeys(("distances_behind_prelu", "scalars"), DOUBLE_BACKWARD if NEWER else ROWS),
    **dict.fromkeys(RECOMPUTED, PLAIN),
    # Group norm of a strided activation and sampling on a grid have forward-mode derivatives since torch 2.14.
    "conv_channels_last": FORWARD if NEWER else DOUBLE_BACKWARD,
    "sampled_at_learned_places": FORWARD
    if NEWER
    else DOUBLE_BACKWARD
    if torch.__version__ >= (2, 7) and DEVICE.type == "cpu"
    else ROWS,
}
# This one rounds its weight, and so every derivative, to float32 inside.
TOLERANCE = {"forced_weight": 1e-6}


def linearized(module: nn.Module, inputs: Any, **options: Any) -> Linearization:
    return Linearization(module, select_parameters(module), inputs, **options)


@every_case
def test_products_agree_with_the_explicit_jacobian(case: Case) -> None:
    module, inputs = case(seed=2, samples=3)
    j = jacobian(module, inputs)
    before = state(module), [tensor.clone() for tensor in inputs]
    operator = NTKOperator.of(module, inputs)
    u, v = normal(j.shape[1], 2).numpy(), normal(j.shape[0], 2, seed=1).numpy()
    tolerance = TOLERANCE.get(case.name, 1e-10)
    for found, truth in (
        (operator @ v, j @ (j.T @ torch.from_numpy(v))),
        (operator.jacobian @ u, j @ torch.from_numpy(u)),
        (operator.jacobian.T @ v, j.T @ torch.from_numpy(v)),
        (operator.gauss_newton @ u, j.T @ (j @ torch.from_numpy(u))),
    ):
        assert found.shape == tuple(truth.shape)
        assert relative_error(torch.from_numpy(found), truth) < tolerance
    assert operator.method == OTHERS.get(case.name, FORWARD)
    assert operator.adjoint_method == (PLAIN if case.name in RECOMPUTED else REVERSE)
    assert state(module) == before[0]
    assert all(torch.equal(a, b) for a, b in zip(inputs, before[1], strict=True))


@every_case
def test_the_slower_methods_say_the_same(case: Case) -> None:
    module, inputs = case(seed=4, samples=2)
    linear = linearized(module, inputs)
    u, v = linear.unflatten(normal(linear.parameter_count)), normal(*linear.output_shape, seed=1)
    order = [FORWARD, DOUBLE_BACKWARD, ROWS, PLAIN]
    pushed, pulled = {}, {}
    for method in order[order.index(linear.method) :]:
        if method != DOUBLE_BACKWARD or OTHERS.get(case.name) != ROWS:
            linear.method = method
            pushed[method] = linear.push(u)
    for method in dict.fromkeys((linear.adjoint_method, PLAIN)):
        linear.adjoint_method = method
        pulled[method] = linear.flatten(linear.pull(v))
    for found in (pushed, pulled):
        for other in found.values():
            assert relative_error(other, found[PLAIN]) < TOLERANCE.get(case.name, 1e-10)


@every_case
def test_chunks_change_nothing(case: Case) -> None:
    module, inputs = case(seed=3, samples=3)
    whole = linearized(module, inputs)
    v = normal(*whole.output_shape)
    pulled, tolerance = whole.pull(v), TOLERANCE.get(case.name, 1e-10)
    pushed = whole.push(pulled)
    parts = linearized(module, inputs, chunk=2)  # of two samples, and of one
    assert relative_error(parts.flatten(parts.pull(v)), whole.flatten(pulled)) < tolerance
    assert relative_error(parts.push(pulled), pushed) < tolerance


@pytest.mark.parametrize("name", ["linear_layers", "recurrent_cells", "attention_self", "conv_2d"])
def test_float32_and_bfloat16(name: str) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        module, inputs = CASES[name](seed=1, samples=2, dtype=dtype)
        operator = NTKOperator.of(module, inputs)
        v = np.ones(operator.shape[1], dtype=np.float32)
        found = operator @ v
        assert found.dtype == operator.dtype == np.float32
        j = jacobian(module.double(), tuple(t.double() if t.is_floating_point() else t for t in inputs))
        assert relative_error(torch.from_numpy(found), j @ j.T @ torch.ones(len(j)).double()) < tolerance
