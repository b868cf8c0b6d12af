"""Measuring leaves nothing behind: on the network, on the inputs, and in torch's own switches; also after an error."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from cases import CASES
from networks.case import Net, normal
from streaming_truth import cotangents_for, state, streamed
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils import checkpoint

from ntkdiag.kernel import gram_of
from ntkdiag.modes import measuring

# torch warns where it has no batching rule, and falls back to a loop
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def switches() -> dict[str, Any]:
    """Process-wide settings that the engine changes for a while, or might."""
    return {
        "fused attention": torch.backends.mha.get_fastpath_enabled(),
        "checkpoint": {name: value for name, value in vars(checkpoint).items() if callable(value)},
        "compiler": torch._dynamo.eval_frame._stance.stance,
        "gradients": torch.is_grad_enabled(),
        "modes": len(_get_current_function_mode_stack()),
        "autocast": torch.is_autocast_enabled("cpu"),
        "saved tensors": torch._C._autograd._saved_tensors_hooks_is_enabled(),
        "random": torch.random.get_rng_state().tolist(),
    }


class Failing(nn.Module):
    """Raises in the given forward, or in every backward."""

    def __init__(self, forward: int | None = None) -> None:
        super().__init__()
        self.left = forward
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.left is not None:
            FORWARDS.append(1)
            if len(FORWARDS) == self.left:
                raise ArithmeticError("in a forward")
            return x * self.scale
        return FailsBackward.apply(x * self.scale)


FORWARDS: list[int] = []


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise ArithmeticError("in a backward")


def network(failing: nn.Module) -> nn.Module:
    """With old-style weight norm, whose hook sets an attribute in every forward, attention and modes of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        first = nn.utils.weight_norm(nn.Linear(4, 4))
    layer = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True)
    net = nn.Sequential(first, layer, nn.Dropout(0.3), nn.Tanh(), failing, nn.Linear(4, 2)).train()
    net[1].eval()
    net[5].bias.requires_grad_(False)
    return net


@pytest.mark.parametrize("engine", ["streaming", "exact"])
@pytest.mark.parametrize("memory", [None, 1])
def test_nothing_changes(engine: str, memory: int | None) -> None:
    net, x = network(nn.Identity()), normal(3, 5, 4).requires_grad_()
    before, outside, values = state(net), switches(), x.detach().clone()
    gram_of(net, (x,), torch.ones(2, 5, 2), engine=engine, memory=memory)
    assert state(net) == before
    assert switches() == outside
    assert torch.equal(x, values)
    assert x._version == 0
    assert x.grad is None
    assert x.grad_fn is None


@pytest.mark.parametrize("engine", ["streaming", "exact"])
@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("forward", [1, 2, None])
def test_nothing_changes_when_the_network_raises(
    engine: str, memory: int | None, forward: int | None
) -> None:
    net, x = network(Failing(forward)), normal(3, 5, 4)
    FORWARDS.clear()
    before, outside = state(net), switches()
    with pytest.raises(ArithmeticError, match=r"in a (for|back)ward"):
        gram_of(net, (x,), torch.ones(2, 5, 2), engine=engine, memory=memory)
    assert state(net) == before
    assert switches() == outside


@pytest.mark.parametrize("engine", ["streaming", "exact"])
def test_it_can_be_measured_again_after_an_error(engine: str) -> None:
    net, x = network(Failing(2)), normal(3, 5, 4)
    FORWARDS.clear()
    with pytest.raises(ArithmeticError):
        gram_of(net, (x,), torch.ones(1, 5, 2), engine=engine)
    found = gram_of(net, (x,), torch.ones(1, 5, 2), engine=engine)
    other = gram_of(net, (x,), torch.ones(1, 5, 2), engine="exact" if engine == "streaming" else "streaming")
    torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-5)


def test_inputs_that_the_network_writes_into_are_copies() -> None:
    module, inputs = CASES["elementwise_on_the_inputs"](seed=0)
    cotangents = cotangents_for(module, inputs)
    before = inputs[0].clone()
    for engine in ("streaming", "exact"):
        gram_of(module, inputs, cotangents, engine=engine)
        assert torch.equal(inputs[0], before)


def test_buffers_attributes_and_containers_that_a_forward_writes_are_put_back() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        m.log.append(float(x.sum()))
        m.cache["last"] = x
        m.fresh = x
        m.count += 1
        m.replaced = m.replaced + 1
        return m.layer(x)

    net = Net(forward, layer=nn.Linear(4, 2))
    net.log, net.cache = [1.0], {"last": None}
    net.register_buffer("count", torch.zeros(()))
    net.register_buffer("replaced", torch.zeros(2))
    replaced = net.replaced
    streamed(net, (normal(3, 4),), torch.ones(1, 2))
    assert net.log == [1.0]
    assert net.cache == {"last": None}
    assert not hasattr(net, "fresh")
    assert float(net.count) == 0
    assert net.replaced is replaced


def test_measuring_puts_back_a_parameter_that_was_replaced_and_hooks_that_were_added() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    weight = net[0].weight
    with measuring(net):
        assert not net[1].training
        net[0].weight = nn.Parameter(torch.zeros(2, 2))
        net[0].register_forward_hook(lambda *ignored: None)
        net.add_module("late", nn.Linear(1, 1))
    assert net[0].weight is weight
    assert not net[0]._forward_hooks
    assert [name for name, _ in net.named_children()] == ["0", "1"]
    assert net[1].training


def test_gradients_that_are_there_stay() -> None:
    net = nn.Linear(4, 2)
    net(normal(1, 4)).sum().backward()
    kept = net.weight.grad.clone()
    gram_of(net, (normal(3, 4),), torch.ones(1, 2))
    assert torch.equal(net.weight.grad, kept)
