"""A layer rule written outside the package: the file of the manual, and the errors of a wrong rule."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from networks.case import Net, normal
from references import brute_gram, relative_error
from streaming_truth import cotangents_for, streamed
from torch import Tensor, nn
from torch.nn import functional

from ntkdiag.errors import InputError
from ntkdiag.kernel.streaming import engine as engine_room
from ntkdiag.kernel.streaming.rules import RULES, Outer, Unsupported, general_rule, rule

EXAMPLE = Path(__file__).parents[3] / "docs" / "extend" / "layer_rule.py"
# torch warns where it has no batching rule, and falls back to a loop
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
OPERATIONS = (functional.bilinear, functional.cosine_similarity)


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    """Operations that have no rule before a test have none after it."""
    assert not any(operation in RULES for operation in OPERATIONS)
    yield
    for operation in OPERATIONS:
        RULES.pop(operation, None)


def pair_and_inputs() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    example = runpy.run_path(str(EXAMPLE))
    return example["Pair"]().double(), (normal(4, 6, 3).double(),)


def test_the_manuals_rule_serves_a_network_and_agrees_with_autograd_one_sample_at_a_time() -> None:
    net, inputs = pair_and_inputs()
    cotangents = cotangents_for(net, inputs)
    truth = brute_gram(net, inputs, cotangents)
    found = streamed(net, inputs, cotangents)
    assert found.engine == "streaming"
    assert found.coverage == {
        "hidden.weight": "linear", "hidden.bias": "linear", "pair.weight": "bilinear", "pair.bias": "bilinear",
    }  # fmt: skip
    assert relative_error(found.per_probe, truth) < 1e-12
    tiled = streamed(net, inputs, cotangents, memory=1).per_probe
    assert relative_error(tiled, truth) < 1e-12
    RULES.pop(functional.bilinear)
    without = streamed(net, inputs, cotangents)
    assert without.coverage["pair.weight"] == "exact (bilinear: no rule)"
    assert relative_error(without.per_probe, truth) < 1e-12


def test_the_manuals_file_is_short_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(code) < 40
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "kernel of 5 samples" in capsys.readouterr().out


def test_a_rule_over_folded_samples() -> None:
    net, inputs = pair_and_inputs()
    folded = Net(lambda m, x: m.pair(x.flatten(0, 1)).unflatten(0, x.shape[:2]), pair=net)
    cotangents = cotangents_for(folded, inputs)
    found = streamed(folded, inputs, cotangents)
    assert found.coverage["pair.pair.weight"] == "bilinear"
    assert relative_error(found.per_probe, brute_gram(folded, inputs, cotangents)) < 1e-12


def register_cosine() -> None:
    """cos(x, w) for tokens x [N, T, d] and one parameter w [d]: the output has no core dimension, x has one."""

    @rule("cosine", [functional.cosine_similarity], core={"grad": 0, "x1": 1})
    def cosine(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> dict[str, Callable[..., Tensor]]:
        if dim not in (-1, x1.ndim - 1) or x2.ndim != 1:
            raise Unsupported("another dimension than the last")

        def gradient(grad: Tensor, x1: Tensor, x2: Tensor) -> Tensor:
            unit, length = x1 / x1.norm(dim=-1, keepdim=True), x2.norm()
            return torch.einsum("nt,ntd->nd", grad, unit / length - (unit @ x2)[..., None] * x2 / length**3)

        return {"x2": gradient}


def test_operands_may_have_core_dimensions_of_their_own_and_parameters_come_as_they_are() -> None:
    register_cosine()
    net = Net(lambda m, x: functional.cosine_similarity(x.sin(), m.w, -1), w=normal(4)).double()
    inputs = (normal(3, 5, 4).double(),)
    cotangents = cotangents_for(net, inputs)
    found = streamed(net, inputs, cotangents)
    assert found.coverage == {"w": "cosine"}
    assert relative_error(found.per_probe, brute_gram(net, inputs, cotangents)) < 1e-12
    turned = Net(lambda m, x: functional.cosine_similarity(m.w, x.sin(), -1), w=normal(4)).double()
    assert streamed(turned, inputs, cotangents).coverage == {
        "w": "exact (cosine_similarity: another dimension than the last)"
    }


def test_operands_of_a_rule_are_of_one_dtype_under_autocast() -> None:
    register_cosine()
    net = Net(lambda m, x: functional.cosine_similarity(m.a(x), m.w, -1), a=nn.Linear(3, 4), w=normal(4))
    inputs = (normal(3, 5, 3),)
    with torch.autocast("cpu", torch.bfloat16):
        cotangents = cotangents_for(net, inputs)
        found = streamed(net, inputs, cotangents, params="w")
        assert found.coverage["w"] == "cosine"
        assert relative_error(found.per_probe, brute_gram(net, inputs, cotangents, ["w"])) < 0.02


def test_an_argument_without_a_formula_is_left_to_the_exact_engine() -> None:
    @rule("half a bilinear", [functional.bilinear])
    def bilinear(
        input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> dict[str, Any]:
        return {"bias": lambda grad: grad.sum(1)}

    net, inputs = nn.Bilinear(3, 3, 2).double(), (normal(4, 3).double(), normal(4, 3).double())
    cotangents = cotangents_for(net, inputs)
    found = streamed(net, inputs, cotangents)
    assert found.coverage["weight"] == "exact (bilinear: a parameter as its weight)"
    assert relative_error(found.per_probe, brute_gram(net, inputs, cotangents)) < 1e-12


def test_a_rule_that_forgets_a_parameter_leaves_it_to_the_exact_engine() -> None:
    @general_rule("forgetful", [functional.bilinear])
    def bilinear(call: object) -> list[Any]:
        return []

    net, inputs = nn.Bilinear(3, 3, 2).double(), (normal(4, 3).double(), normal(4, 3).double())
    cotangents = cotangents_for(net, inputs)
    found = streamed(net, inputs, cotangents)
    assert found.coverage["weight"] == (
        "exact (bilinear: an argument that its rule does not expect to be a parameter)"
    )
    assert relative_error(found.per_probe, brute_gram(net, inputs, cotangents)) < 1e-12


WRONG: list[tuple[Callable[..., Any], str]] = [
    (
        lambda grad, input1: grad.mT @ input1,
        r"rule 'wrong', weight: expected \(4, 2, 3, 3\); got \(4, 2, 3\)",
    ),
    (
        lambda grad, x: grad,
        r"rule 'wrong', weight: expected tensor arguments of the operation \(input1, .*\); got x\.",
    ),
]


@pytest.mark.parametrize(("formula", "words"), WRONG)
def test_a_formula_of_the_wrong_shape_or_with_unknown_operands_is_an_error(
    formula: Callable[..., Any], words: str
) -> None:
    @rule("wrong", [functional.bilinear])
    def bilinear(
        input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> dict[str, Any]:
        return {"weight": formula, "bias": lambda grad: grad.sum(1)}

    net, inputs = nn.Bilinear(3, 3, 2), (normal(4, 3), normal(4, 3))
    with pytest.raises(ValueError, match=words):
        streamed(net, inputs, cotangents_for(net, inputs))


def test_an_operation_has_one_rule() -> None:
    words = "rule 'mine': expected an operation without a rule; got linear, which the rule 'linear' serves"
    with pytest.raises(InputError, match=words):

        @rule("mine", [functional.linear])
        def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> dict[str, Any]:
            return {"weight": lambda grad, input: Outer(grad, input)}


def test_all_layers_refused_during_the_backward_cost_one_sweep_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a convolution along the samples, which its rule refuses once it sees where they are."""

    def forward(m: Net, x: Tensor) -> Tensor:
        for layer in (m.a, m.b, m.c):
            x = layer(x.T.unsqueeze(0)).squeeze(0).T
        return m.out(x)

    parts = {name: nn.Conv1d(4, 4, 1) for name in "abc"}
    net, inputs = Net(forward, **parts, out=nn.Linear(4, 2)).double(), (normal(3, 4).double(),)
    cotangents = cotangents_for(net, inputs)
    sweeps = []
    plain = engine_room.sweep
    monkeypatch.setattr(engine_room, "sweep", lambda *given: sweeps.append(1) or plain(*given))
    found = streamed(net, inputs, cotangents)
    assert len(sweeps) == 2
    assert relative_error(found.per_probe, brute_gram(net, inputs, cotangents)) < 1e-12
    assert {name for name, how in found.coverage.items() if how.startswith("exact")} == {
        f"{layer}.{kind}" for layer in "abc" for kind in ("weight", "bias")
    }
