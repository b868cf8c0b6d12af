"""Every function of torch that a rule is registered for, and operations in place, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks.case import Net
from references import brute_gram, relative_error
from streaming_truth import cotangents_for, streamed
from torch import Tensor, nn
from torch.nn import functional

from ntkdiag.kernel.streaming.recording.torch_operations import DECOMPOSITIONS, IN_PLACE, writes_into_first
from ntkdiag.kernel.streaming.rules.elementwise import ELEMENTWISE
from ntkdiag.kernel.streaming.rules.general import RULES

X = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
P = torch.rand(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
BETWEEN = {
    torch.where: lambda a, b: torch.where(X[:1] > 1, a, b),
    Tensor.where: lambda a, b: a.where(X[:1] > 1, b),
}
OF_THREE = {torch.addcmul, torch.addcdiv, torch.lerp, Tensor.addcmul, Tensor.addcdiv, Tensor.lerp}


def name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", str(function))


def served(net: nn.Module, *inputs: Tensor) -> bool:
    """Whether every parameter was served by a rule, with the right kernel."""
    net = net.double()
    cotangents = cotangents_for(net, inputs)
    found = streamed(net, inputs, cotangents)
    right = relative_error(found.per_probe, brute_gram(net, inputs, cotangents)) < 1e-10
    return right and not any(how.startswith("exact") for how in found.coverage.values())


@pytest.mark.parametrize("function", [f for f in ELEMENTWISE if f not in OF_THREE], ids=name_of)
def test_elementwise_with_the_parameter_on_either_side(function: Callable[..., Tensor]) -> None:
    apply = BETWEEN.get(function, function)
    assert served(Net(lambda m, x: apply(x, m.p), p=P), X)
    assert served(Net(lambda m, x: apply(m.p, x), p=P), X)


@pytest.mark.parametrize("function", sorted(OF_THREE, key=name_of), ids=name_of)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_elementwise_of_three(function: Callable[..., Tensor], place: int) -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        arguments = [x, x.sin() + 2, x.cos() + 2]
        arguments[place] = m.p
        return function(*arguments)

    assert served(Net(forward, p=P), X)


@pytest.mark.parametrize("function", [f for f in IN_PLACE if "mm" not in f.__name__], ids=name_of)
def test_in_place_operations_return_and_change_their_first_argument(function: Callable[..., Tensor]) -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = x.sin()
        if "masked_fill" in function.__name__:
            returned = function(y, x > 1, m.p[0])
        elif function.__name__.startswith(("addc", "lerp")):
            returned = function(y, x, m.p)
        else:
            returned = function(y, m.p)
        assert returned is y
        return returned + y.square()

    assert served(Net(forward, p=P), X)


def test_in_place_products_of_matrices() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], 2, 3) + x[..., :1]
        y.baddbmm_(x, m.w.expand(x.shape[0], 4, 3))
        return y[:, 0].addmm_(x[:, 1], m.w, beta=0.5)

    assert served(Net(forward, w=torch.rand(4, 3)), X)


M = torch.rand(4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
OTHERS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "torch.mv": lambda m, x: torch.mv(x[:, 0], m.p),
    "Tensor.mv": lambda m, x: x[:, 0].mv(m.p),
    "torch.mm": lambda m, x: torch.mm(x[:, 0], m.w),
    "Tensor.mm": lambda m, x: x[:, 0].mm(m.w),
    "Tensor.bmm": lambda m, x: x.bmm(m.w.expand(3, 4, 5)) if x.shape[0] == 3 else x @ m.w,
    "Tensor.__matmul__": lambda m, x: Tensor.__matmul__(x, m.w),
    "Tensor.__rmatmul__": lambda m, x: Tensor.__rmatmul__(m.w, x),
    "Tensor.matmul": lambda m, x: m.w.T.matmul(x.mT),
    "Tensor.baddbmm": lambda m, x: (x[..., :1] * 0).baddbmm(x, m.w.expand(x.shape[0], 4, 5)),
    "Tensor.index_select": lambda m, x: m.w.index_select(0, (x[:, 0, 0] > 1).long()),
    "torch.embedding": lambda m, x: torch.embedding(m.w, (x > 1).long()),
    "torch.concat": lambda m, x: torch.concat([m.p.expand_as(x), x], -1),
    "torch.concatenate": lambda m, x: torch.concatenate([x, m.p.expand_as(x)], dim=1),
    "Tensor.prelu": lambda m, x: (x - 1).prelu(m.p[:2]),
    "functional.embedding with a negative padding index": lambda m, x: functional.embedding(
        (x > 1).long(), m.w, padding_idx=-4
    ),
    "Tensor.outer": lambda m, x: x[:, 0, 0].outer(m.p),
    "Tensor.ger": lambda m, x: x[:, 0, 0].ger(m.p),
    "torch.ger": lambda m, x: torch.ger(x[:, 0, 0], m.p),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions_of_the_same_operation(name: str) -> None:
    assert served(Net(OTHERS[name], p=P, w=M), X)


def test_groups_of_rows_each_with_a_matrix_of_its_own() -> None:
    """Samples among the rows of a stack of matrices, from either side."""

    def forward(m: Net, x: Tensor) -> Tensor:
        groups = torch.bmm(x.transpose(0, 1), m.w).sin()  # [2, N, 5]
        return (m.v @ groups.mT).permute(2, 0, 1)  # [N, 2, 3]

    assert served(Net(forward, w=torch.rand(2, 4, 5), v=torch.rand(2, 3, 5)), X)


def test_registered_operations_are_hashable_functions_and_in_place_ones_are_known_as_such() -> None:
    assert all(callable(function) for function in RULES)
    assert all(writes_into_first(function) for function in IN_PLACE)
    assert not any(writes_into_first(function) for function in (*RULES, *DECOMPOSITIONS))
    assert {function for function in IN_PLACE.values() if function not in RULES} <= set(DECOMPOSITIONS)
