"""Dtypes, memory formats and contexts: half precision, autocast, channels-last, compiled and checkpointed parts."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from cases import CASES
from networks.case import Net, normal
from references import brute_gram, relative_error
from streaming_truth import cotangents_for, streamed
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import checkpoint

from ntkdiag.kernel import gram_of

HALF = [
    "linear_on_tokens", "attention_self", "conv_2d", "norm_layer", "tied_embedding", "tokens_expanded",
    "low_rank_update", "folded_sample_minor",
]  # fmt: skip


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_agrees_within_its_rounding(name: str, dtype: torch.dtype, tolerance: float) -> None:
    module, inputs = CASES[name](seed=0, samples=4, dtype=dtype)
    cotangents = cotangents_for(module, inputs)
    found = streamed(module, inputs, cotangents)
    wide = tuple(t.double() if t.is_floating_point() else t for t in inputs)
    truth = brute_gram(module.double(), wide, cotangents.double())
    assert relative_error(found.per_probe, truth) < tolerance
    assert not any(how.startswith("exact") for how in found.coverage.values())


def test_half_precision_gradients_are_summed_in_single() -> None:
    """4096 tokens of 1: in bfloat16 alone a sum would stop at 256."""
    net = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    x = torch.ones(2, 4096, 1, dtype=torch.bfloat16)
    found = gram_of(net, (x,), torch.ones(1, 4096, 1, dtype=torch.bfloat16))
    assert relative_error(found, torch.full((1, 2, 2), 4096.0**2)) < 1e-6


class Autocast(nn.Module):
    """A network that casts for itself."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(*inputs)


@pytest.mark.parametrize(
    "name", ["linear_on_tokens", "attention_self", "conv_2d", "elementwise_in_place", "matmul_heads"]
)
def test_autocast_inside_the_network(name: str) -> None:
    module, inputs = CASES[name](seed=0, samples=4, dtype=torch.float32)
    cotangents = cotangents_for(module, inputs)
    found = streamed(Autocast(module), inputs, cotangents)
    truth = brute_gram(module, inputs, cotangents)
    assert relative_error(found.per_probe, truth) < 0.05
    assert relative_error(found.per_probe, truth) > 0  # it did run in half precision
    assert not any(how.startswith("exact") for how in found.coverage.values())


def test_the_callers_autocast_rounds_the_network_and_not_the_kernel() -> None:
    module, inputs = CASES["linear_on_tokens"](seed=0, samples=4, dtype=torch.float32)
    cotangents = cotangents_for(module, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outside = streamed(module, inputs, cotangents).per_probe
    assert torch.equal(outside, streamed(Autocast(module), inputs, cotangents).per_probe)


@pytest.mark.parametrize("name", ["conv_2d", "conv_transposed_2d", "norm_group", "conv_channels_last"])
def test_channels_last_changes_nothing(name: str) -> None:
    module, inputs = CASES[name](seed=0)
    cotangents = cotangents_for(module, inputs)
    scale = {key: torch.rand_like(p) + 0.5 for key, p in module.named_parameters()}
    truth = brute_gram(module, inputs, cotangents, preconditioner=scale)
    module = module.to(memory_format=torch.channels_last)
    inputs = tuple(t.contiguous(memory_format=torch.channels_last) for t in inputs)
    assert relative_error(streamed(module, inputs, cotangents, preconditioner=scale).per_probe, truth) < 1e-12


@pytest.fixture
def _eager() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_eager")
def test_compiled_parts_run_as_plain_ones() -> None:
    plain, inputs = CASES["linear_layers"](seed=0)
    cotangents = cotangents_for(plain, inputs)
    part = copy.deepcopy(plain)
    part[2] = torch.compile(part[2], backend="eager")
    for module in (part, torch.compile(copy.deepcopy(plain), backend="eager")):
        found = streamed(module, inputs, cotangents)
        assert relative_error(found.per_probe, brute_gram(plain, inputs, cotangents)) < 1e-12
        assert set(found.coverage.values()) == {"linear"}


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_parts_run_once(reentrant: bool) -> None:
    """Their forward is not run a second time in the backward, where nobody records it."""
    runs = []

    def block(x: Tensor) -> Tensor:
        runs.append(len(x))
        return net.layer(x).tanh()

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.out(checkpoint.checkpoint(block, m.first(x), use_reentrant=reentrant))

    net = Net(forward, first=nn.Linear(4, 4), layer=nn.Linear(4, 4), out=nn.Linear(4, 2))
    gram_of(net, (normal(5, 4),), torch.ones(3, 2), check=False)
    assert runs == [2, 5]  # the rehearsal, and the one forward of all probes
    runs.clear()
    gram_of(net, (normal(5, 4),), torch.ones(3, 2))
    assert runs[:2] == [1, 5]
    assert set(runs[2:]) == {2}  # the check runs the module as it is, with its checkpoints


def test_several_probes_share_one_forward() -> None:
    runs = []
    net = Net(lambda m, x: runs.append(len(x)) or m.layer(x), layer=nn.Linear(4, 2))
    gram_of(net, (normal(5, 4),), torch.ones(7, 2))
    assert runs == [1, 5, 2]  # the rehearsal, all samples, and two samples for the check


def test_it_works_where_gradients_are_switched_off() -> None:
    module, inputs = CASES["low_rank_update"](seed=0)
    cotangents = cotangents_for(module, inputs)
    truth = brute_gram(module, inputs, cotangents)
    with torch.no_grad():
        assert relative_error(streamed(module, inputs, cotangents).per_probe, truth) < 1e-12


def test_fused_attention_is_measured_and_not_swallowed() -> None:
    """`scaled_dot_product_attention` between activations is left to torch: it holds no parameter."""

    def forward(m: Net, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).chunk(3, -1)
        return m.out(functional.scaled_dot_product_attention(q, k, v, is_causal=True))

    net, x = Net(forward, qkv=nn.Linear(4, 12), out=nn.Linear(4, 4)).double(), normal(3, 5, 4).double()
    cotangents = cotangents_for(net, (x,))
    assert (
        relative_error(streamed(net, (x,), cotangents).per_probe, brute_gram(net, (x,), cotangents)) < 1e-12
    )


# --- outputs of any scale


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("scale", [1e-10, 1e-18, 1e-20, 1e-22, 1e-25, 1e-35, 1e15, 1e21, 1e36])
def test_outputs_of_any_scale_have_their_kernel(scale: float, check: bool) -> None:
    """Products of gradients of 1e-20 are lost in float32, and those of 1e21 overflow."""
    net = Net(lambda m, x: m.out(m.first(x).tanh()) * scale, first=nn.Linear(4, 6), out=nn.Linear(6, 3))
    x, v = normal(5, 4).float(), torch.ones(1, 3)
    if scale > 1e20 and not check:  # refused for what is not finite by `gram`
        assert not torch.isfinite(gram_of(net, (x,), v, check=False)).all()
        return
    found = gram_of(net, (x,), v, check=check)
    truth = brute_gram(net.double(), (x.double(),), v.double()[:, None].expand(1, 5, 3))
    assert relative_error(found / truth.abs().max(), truth / truth.abs().max()) < 1e-4
