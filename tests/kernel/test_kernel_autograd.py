"""Plain autograd, the truth: blocks that run again in the backward, and what is put back afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CASES, Case
from kernel_networks import normal, perceptron, shaken
from networks.case import Net
from references import brute_gram, relative_error
from streaming_truth import cotangents_for, state
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel import autograd, gram_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("engine", ["autograd", "exact"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_network_has_the_gradients_of_training(case: Case, engine: str) -> None:
    module, inputs = case(seed=4, samples=4)
    cotangents = cotangents_for(module, inputs)
    truth = brute_gram(module, inputs, cotangents)  # some networks write into themselves
    before = state(module)
    found = gram_of(module, inputs, cotangents, engine=engine, check=False)
    assert relative_error(found, truth) < 1e-9
    assert state(module) == before


@pytest.mark.parametrize("engine", ["autograd", "exact"])
def test_a_reentrant_checkpoint_on_the_inputs_has_the_gradients_of_its_block(engine: str) -> None:
    """Training gives it none, unless the inputs require a gradient."""
    block, out = perceptron(), shaken(nn.Linear(4, 2))
    x, cotangents = normal(4, 3), normal(1, 4, 2, seed=1)
    net = Net(lambda m, x: m.out(checkpoint(m.block, x, use_reentrant=True)), block=block, out=out)
    plain = nn.Sequential(block, out)
    found = gram_of(net, (x,), cotangents, engine=engine)
    assert relative_error(found, brute_gram(plain, (x,), cotangents)) < 1e-12


def steps(parameter: Tensor) -> None:
    raise AssertionError("an optimizer that steps during the backward was called")


def test_gradients_and_hooks_of_the_network_are_put_back() -> None:
    module, inputs = CASES["checkpoint_and_recompute"](seed=0)
    for number, parameter in enumerate(module.parameters()):
        parameter.grad = torch.full_like(parameter, float(number))
        parameter.register_post_accumulate_grad_hook(steps)
    module.c.weight.requires_grad_(False)
    before = state(module)
    grads = {name: p.grad for name, p in module.named_parameters()}
    gram_of(module, inputs, torch.ones(1, 2), engine="autograd", params=["*"])
    assert state(module) == before
    for name, parameter in module.named_parameters():
        assert parameter.grad is grads[name]
        assert steps in (parameter._post_accumulate_grad_hooks or {}).values()


class Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise RuntimeError("no derivative here\nsecond line")


def test_a_backward_that_fails_either_way_is_named_and_leaves_the_network_as_it_was() -> None:
    net = Net(lambda m, x: Raises.apply(m.layer(x)), layer=shaken(nn.Linear(3, 2)))
    net.layer.weight.grad = torch.ones_like(net.layer.weight)
    before, kept = state(net), net.layer.weight.grad
    words = r"expected a backward to layer\.weight, layer\.bias; got RuntimeError: no derivative here$"
    with pytest.raises(MeasurementError, match=words):
        gram_of(net, (normal(3, 3),), torch.ones(1, 2, dtype=torch.float64), engine="autograd")
    assert state(net) == before
    assert net.layer.weight.grad is kept


def test_a_parameter_that_autograd_passes_nothing_to_has_none() -> None:
    net = Net(
        lambda m, x: m.used(x) + 0 * m.zero, used=shaken(nn.Linear(3, 2)), zero=normal(2), spare=normal(2)
    )
    with autograd.PlainAutograd(net, dict(net.named_parameters())) as plain:
        output, found = plain.pull((normal(1, 3),), torch.ones_like)
    assert output.shape == (1, 2)
    assert found["spare"] is None
    assert torch.equal(found["zero"], torch.zeros(2, dtype=torch.float64))


def test_inputs_that_the_network_writes_into_or_turns_into_arrays() -> None:
    def overwrites(m: Net, x: Tensor) -> Tensor:
        x.mul_(2)
        return m.layer(x)

    def leaves_torch(m: Net, x: Tensor) -> Tensor:
        return m.layer(torch.from_numpy(2 * x.numpy()))

    x, cotangents = normal(3, 3), normal(1, 3, 2, seed=1)
    layer = shaken(nn.Linear(3, 2))
    truth = brute_gram(layer, (2 * x,), cotangents)
    for forward in (overwrites, leaves_torch):
        found = gram_of(Net(forward, layer=layer), (x,), cotangents, engine="autograd")
        assert relative_error(found, truth) < 1e-12


def test_buffers_that_activations_are_written_into_are_put_back_without_a_graph() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        m.seen.copy_(x[0])
        return m.layer(x)

    net = Net(forward, layer=shaken(nn.Linear(3, 2)))
    net.register_buffer("seen", torch.zeros(3, dtype=torch.float64))
    gram_of(net, (normal(3, 3),), torch.ones(1, 2, dtype=torch.float64), engine="autograd")
    assert not net.seen.requires_grad
    assert torch.equal(net.seen, torch.zeros(3, dtype=torch.float64))
