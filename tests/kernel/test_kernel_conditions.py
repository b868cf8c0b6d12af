"""Kernels of a network with conditions of each sample's own, against plain autograd of one sample at a time."""

from __future__ import annotations

from typing import Any

import kernel_truth
import numpy as np
import pytest
import torch
from conditional_network import COND, LEVELS, NOISE, SAMPLES, X0, Conditional, conditional, of
from torch import Tensor, nn

import ntkdiag as nd
from ntkdiag.conditions import rows_of
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel.check import CheckOnce

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
ENGINES = ["streaming", "exact", "autograd"]


def jacobian(network: nn.Module, cond: dict[str, Tensor]) -> Tensor:
    """J of each sample alone, [N, D, P]: the network is called with its own arguments, and no Denoiser."""
    schedule = nd.schedules.cosine()
    x = schedule.diffuse(X0, NOISE, LEVELS)  # the cosine path preserves the variance
    rows = []
    for i in range(SAMPLES):
        one = {name: values[i : i + 1] for name, values in cond.items()}
        named = {"class_labels": one["label"], **{name: one[name] for name in ("text", "mask", "pooled")}}
        output = network(x[i : i + 1], LEVELS[i : i + 1], **named).flatten()
        each = [torch.autograd.grad(value, list(network.parameters()), retain_graph=True) for value in output]
        rows.append(torch.stack([torch.cat([part.flatten() for part in grads]) for grads in each]))
    return torch.stack(rows)


TRUTH = jacobian(conditional().network, COND)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_sees_each_samples_own_conditions(engine: str) -> None:
    found = nd.gram(conditional(), X0, LEVELS, epsilon=NOISE, cond=COND, engine=engine, probes=24)
    torch.testing.assert_close(found.matrix, kernel_truth.trace(TRUTH), **TOLERANCE)
    assert found.engine == engine  # the check of the first and the last sample found nothing to correct


@pytest.mark.parametrize("engine", ENGINES)
def test_all_outputs(engine: str) -> None:
    """Samples are repeated there, a row for each output, and their conditions with them."""
    found = nd.gram(conditional(), X0, LEVELS, epsilon=NOISE, cond=COND, engine=engine, kernel="full")
    torch.testing.assert_close(found.matrix, kernel_truth.full(TRUTH), **TOLERANCE)


@pytest.mark.parametrize("memory", [1, 20_000])
def test_little_memory_divides_the_conditions_too(memory: int) -> None:
    found = nd.gram(conditional(), X0, LEVELS, epsilon=NOISE, cond=COND, probes=24, memory=memory)
    torch.testing.assert_close(found.matrix, kernel_truth.trace(TRUTH), **TOLERANCE)


def test_conditions_may_come_in_any_order_and_dtype() -> None:
    given = {name: COND[name].float() if name == "text" else COND[name] for name in reversed(COND)}
    found = nd.gram(conditional(), X0, LEVELS, epsilon=NOISE, cond=given, probes=24)
    torch.testing.assert_close(found.matrix, kernel_truth.trace(TRUTH), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_operator(chunk: int | None) -> None:
    denoiser = conditional()
    x = denoiser.schedule.diffuse(X0, NOISE, LEVELS)
    operator = nd.NTKOperator(denoiser, x, LEVELS, cond=COND, chunk=chunk)
    np.testing.assert_allclose(
        operator @ np.eye(operator.shape[1]), kernel_truth.full(TRUTH), rtol=1e-9, atol=1e-11
    )
    part = nd.NTKOperator(denoiser, x, LEVELS, cond=COND, rows=[4, 1], columns=[0, 2, 3])
    blocks = kernel_truth.full(TRUTH).reshape(SAMPLES, 24, SAMPLES, 24)[[4, 1]][:, :, [0, 2, 3]]
    np.testing.assert_allclose(part @ np.eye(part.shape[1]), blocks.reshape(48, 72), rtol=1e-9, atol=1e-11)


def test_another_condition_is_another_kernel() -> None:
    for name in COND:
        turned = {**COND, name: COND[name].roll(1, 0)}
        found = nd.gram(conditional(), X0, LEVELS, epsilon=NOISE, cond=turned, probes=24)
        assert not torch.allclose(found.matrix, kernel_truth.trace(TRUTH), rtol=1e-3), name
        own = jacobian(conditional().network, turned)
        torch.testing.assert_close(found.matrix, kernel_truth.trace(own), **TOLERANCE)


def test_a_function_gets_the_conditions_by_name() -> None:
    def call(network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        return network(
            x, log_snr, class_labels=cond["label"], **{n: cond[n] for n in ("text", "mask", "pooled")}
        )

    network = conditional().network
    denoiser = Denoiser(network, nd.schedules.cosine(), "v", call=call, conditions=list(COND))
    found = nd.gram(denoiser, X0, LEVELS, epsilon=NOISE, cond=COND, probes=24)
    torch.testing.assert_close(found.matrix, kernel_truth.trace(TRUTH), **TOLERANCE)


class Muddled(Conditional):
    """Uses the label of the first sample for all: the two samples of the rehearsal have others."""

    def forward(self, x: Tensor, time: Tensor, *, class_labels: Tensor, **rest: Tensor) -> Tensor:
        return super().forward(x, time, class_labels=class_labels[:1].expand(len(x)), **rest)


def test_a_network_that_mixes_conditions_is_refused() -> None:
    with pytest.raises(MeasurementError, match="each sample's"):
        nd.gram(of(Muddled), X0, LEVELS, epsilon=NOISE, cond=COND)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"text": None},
            r"conditions of the network: expected label, text, mask, pooled; got label, mask, pooled",
        ),
        (
            {"style": torch.zeros(5)},
            r"expected label, text, mask, pooled; got label, text, mask, pooled, style",
        ),
        (
            {"label": torch.zeros(4).long()},
            r"condition 'label': expected a tensor of 5 rows; got shape \[4\]",
        ),
        ({"label": [0, 1, 2, 0, 1]}, r"condition 'label': expected a tensor of 5 rows; got list"),
        ({"label": torch.tensor(3)}, r"condition 'label': expected a tensor of 5 rows; got shape \[\]"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    cond = {name: each for name, each in {**COND, **change}.items() if each is not None}
    with pytest.raises(InputError, match=words):
        nd.gram(conditional(), X0, LEVELS, epsilon=NOISE, cond=cond)
    with pytest.raises(InputError, match=words):
        nd.NTKOperator(conditional(), X0, LEVELS, cond=cond)


def test_one_check_serves_calls_with_other_conditions() -> None:
    """`measure` checks once; rows of conditions must not be kept from the first call."""
    once, denoiser = CheckOnce(), conditional()
    for shift in (0, 1):
        cond = {name: values.roll(shift, 0) for name, values in COND.items()}
        found = nd.gram(denoiser, X0, LEVELS, epsilon=NOISE, cond=cond, probes=24, check=once)
        torch.testing.assert_close(
            found.matrix, kernel_truth.trace(jacobian(denoiser.network, cond)), **TOLERANCE
        )


def test_rows_go_with_their_samples() -> None:
    order = torch.tensor([3, 0, 4])
    chosen = rows_of(COND, order)
    found = nd.gram(conditional(), X0[order], LEVELS[order], epsilon=NOISE[order], cond=chosen, probes=24)
    torch.testing.assert_close(found.matrix, kernel_truth.trace(TRUTH[order]), **TOLERANCE)
