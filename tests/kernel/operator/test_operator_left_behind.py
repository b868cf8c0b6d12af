"""The operator leaves network, inputs and torch's switches as they were, and says in words what it cannot take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES
from networks.case import Net
from operator_truth import image_denoiser, images, jacobian, normal
from streaming_truth import state
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel import NTKOperator
from ntkdiag.kernel.operator.linearization import Linearization
from ntkdiag.kernel.operator.products import DOUBLE_BACKWARD, FORWARD
from ntkdiag.kernel.parameters import select_parameters

X, LEVELS = images(3)


def switches() -> dict[str, Any]:
    """Process-wide settings that the operator changes for a while, or might."""
    return {
        "attention": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.cudnn_sdp_enabled(),
        ),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "gradients": torch.is_grad_enabled(),
        "forward mode": torch.autograd.forward_ad._current_level,
        "random": torch.random.get_rng_state().tolist(),
    }


def exercised(operator: NTKOperator) -> np.ndarray:
    ones = np.ones(operator.shape[1], dtype=operator.dtype)
    return operator.jacobian @ (operator.jacobian.T @ (operator @ ones))


# --- nothing is left behind


@pytest.mark.parametrize("chunk", [None, 1])
def test_nothing_changes(chunk: int | None) -> None:
    denoiser = image_denoiser().train()
    denoiser.network.out.eval()
    denoiser.network.embed.requires_grad_(False)
    denoiser(X, LEVELS).sum().backward()
    inputs = X.clone().requires_grad_()
    before, outside = state(denoiser), switches()
    exercised(NTKOperator(denoiser, inputs, LEVELS, chunk=chunk))
    assert state(denoiser) == before
    assert switches() == outside
    assert torch.equal(inputs, X)
    assert inputs.grad is None


def test_switches_that_the_user_set_stay() -> None:
    denoiser = image_denoiser()
    operator = NTKOperator(denoiser, X, LEVELS)
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]), torch.no_grad():
        outside = switches()
        found = exercised(operator)
        assert switches() == outside
    np.testing.assert_allclose(found, exercised(operator), rtol=1e-10)


class Failing(nn.Module):
    """Passes its input on until it is made to fail."""

    fails = False

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4).double())

    def forward(self, x: Tensor) -> Tensor:
        if Failing.fails:
            raise ArithmeticError("in a forward")
        return functional.scaled_dot_product_attention(x, x * self.scale, x)


@pytest.mark.parametrize("method", [FORWARD, DOUBLE_BACKWARD])
def test_nothing_changes_when_the_network_raises(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Linear(4, 4).double(), Failing()).train()
    linear = Linearization(net, select_parameters(net), (normal(3, 5, 4),))
    linear.method = method
    tangent = linear.pull(normal(3, 5, 4))
    before, outside = state(net), switches()
    monkeypatch.setattr(Failing, "fails", True)
    with pytest.raises(ArithmeticError, match="in a forward"):
        linear.push(tangent)
    assert state(net) == before
    assert switches() == outside
    monkeypatch.setattr(Failing, "fails", False)
    assert torch.isfinite(linear.push(tangent)).all()


def test_fused_attention_serves_the_user_and_the_plain_one_only_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Backends in force at each call of attention: the user's own in reverse mode, the plain one in forward mode."""
    attend, seen = functional.scaled_dot_product_attention, []

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(switches()["attention"][:3])
        return attend(*args, **kwargs)

    operator = NTKOperator(image_denoiser(), X, LEVELS)
    user = switches()["attention"][:3]
    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    exercised(operator)
    assert seen == [user, *[(False, False, True)] * 2]  # the graph is kept: one pull's forward, two pushes


# --- modes, and what may not change


def test_the_network_is_measured_in_eval_mode_whatever_mode_it_is_in() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2)).double()
    x = normal(5, 4)
    found = exercised(NTKOperator.of(net.train(), (x,)))
    assert net.training and net[1].num_batches_tracked == 0
    j = jacobian(net.eval(), (x,))
    np.testing.assert_allclose(found, (j @ j.T @ j @ j.T @ torch.ones(10).double()).numpy(), rtol=1e-10)
    after = NTKOperator.of(net, (x,))
    net.train()  # between construction and use
    np.testing.assert_allclose(exercised(after), found, rtol=1e-12)


def test_parameters_that_change_meanwhile_are_refused() -> None:
    denoiser = image_denoiser()
    operator = NTKOperator(denoiser, X, LEVELS)
    with torch.no_grad():
        denoiser.network.out.bias.add_(1)
    for product in (
        lambda: operator @ np.ones(48),
        lambda: operator.jacobian @ np.ones(operator.jacobian.shape[1]),
    ):
        with pytest.raises(MeasurementError, match="parameters that stay as they are"):
            product()


def test_the_users_tensors_may_change_meanwhile() -> None:
    denoiser, x = image_denoiser(), X.clone()
    operator = NTKOperator(denoiser, x, LEVELS)
    before = exercised(operator)
    x.zero_()
    np.testing.assert_array_equal(exercised(operator), before)


def test_buffers_that_every_forward_writes_do_not_stay_written() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        m.count += 1
        return m.layer(x) * m.count

    net = Net(forward, layer=nn.Linear(4, 2).double())
    net.register_buffer("count", torch.zeros(()).double())
    exercised(NTKOperator.of(net, (normal(3, 4),)))
    assert float(net.count) == 0


# --- what cannot be measured


def of(net: nn.Module, samples: int = 3) -> NTKOperator:
    return NTKOperator.of(net.double(), (normal(samples, 4),))


def test_dropout_that_stays_on_is_refused() -> None:
    with pytest.raises(MeasurementError, match="dropout that is on in eval mode in the network itself"):
        of(Net(lambda m, x: functional.dropout(m.layer(x)), layer=nn.Linear(4, 2)))


def test_samples_that_depend_on_each_other_are_refused() -> None:
    with pytest.raises(MeasurementError, match="each sample's values to be its own"):
        of(Net(lambda m, x: m.layer(x - x.mean(0)), layer=nn.Linear(4, 2)))


def test_random_numbers_are_refused() -> None:
    with pytest.raises(MeasurementError, match="the same every time"):
        of(Net(lambda m, x: m.layer(x) * torch.rand(()), layer=nn.Linear(4, 2)))


def test_derivatives_that_are_not_finite_are_refused() -> None:
    with pytest.raises(
        MeasurementError,
        match=r"expected finite gradients; got NaN or infinity in those of scale\. Look for a root",
    ):
        of(Net(lambda m, x: (m.scale * x * 0).abs().sqrt(), scale=torch.ones(4)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunk": 0}, "chunk: expected an integer of at least 1; got 0"),
        ({"rows": []}, r"rows: expected positions from 0 to 2, or a mask of 3"),
        ({"rows": [0, 3]}, r"rows: expected positions from 0 to 2.* got \[0, 3\]"),
        ({"columns": [-1]}, r"columns: expected positions from 0"),
        ({"columns": [1, 1]}, r"columns: expected each sample once; got \[1, 1\]"),
        ({"rows": [0.5]}, "rows: expected positions"),
        ({"rows": torch.tensor([True, False])}, "rows: expected positions from 0 to 2, or a mask of 3"),
        ({"rows": torch.zeros(3, dtype=torch.bool)}, "rows: expected positions"),
        ({"outputs": torch.ones(1, 4, 4)}, r"outputs: expected a boolean mask of shape \(1, 4, 4\)"),
        ({"outputs": torch.zeros(1, 4, 4, dtype=torch.bool)}, "with something in it; got 0 of"),
        ({"outputs": torch.ones(16, dtype=torch.bool)}, r"shape \(1, 4, 4\)"),
        ({"params": "nothing.*"}, "params: expected a pattern matching"),
        ({"preconditioner": {}}, r"preconditioner of network\..*: expected positive values .*got none"),
        ({"cond": torch.zeros(2)}, r"inputs: expected tensors \[N, ...\] with one N"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        NTKOperator(image_denoiser(), X, LEVELS, **options)


def test_a_preconditioner_must_be_positive_and_fit() -> None:
    denoiser = image_denoiser()
    scale = {n: torch.ones_like(p) for n, p in denoiser.network.named_parameters()}
    for bad in (torch.zeros(16), torch.ones(3)):
        with pytest.raises(
            InputError, match=r"preconditioner of network\.out\.bias: expected positive values"
        ):
            NTKOperator(denoiser, X, LEVELS, preconditioner=scale | {"out.bias": bad})


def test_log_snr_and_vectors_must_fit() -> None:
    with pytest.raises(InputError, match="log_snr: expected one number or 3; got shape"):
        NTKOperator(image_denoiser(), X, LEVELS[:2])
    operator = NTKOperator(image_denoiser(), X, LEVELS)
    for wrong in (torch.ones(47).double(), torch.ones(3, 48).double(), torch.ones(()).double()):
        with pytest.raises(InputError, match=r"vectors: expected \[48\] or \[48, k\]"):
            operator.apply(wrong)
    with pytest.raises(ValueError, match="dimension mismatch"):  # scipy's own words
        operator @ np.ones(47)


def test_outputs_that_are_no_batch_are_refused() -> None:
    with pytest.raises(InputError, match="module output: expected 1 rows, one for each sample"):
        of(Net(lambda m, x: m.layer(x).sum(0), layer=nn.Linear(4, 2)))
    module, _ = CASES["linear_layers"](seed=0)
    with pytest.raises(InputError, match="inputs: expected tensors"):
        NTKOperator.of(module, (torch.zeros(0, 4).double(),))
