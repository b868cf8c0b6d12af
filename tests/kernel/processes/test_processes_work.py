"""What a kernel costs is counted before it is computed: against formulas, and against what processes really exchange."""

from __future__ import annotations

import pytest
import shared_jobs
import torch
from cases import CASES
from process_group import ProcessGroup
from torch import nn

from ntkdiag.kernel.work import Rates, Work, gemm_rate, pass_seconds, shape_of, work_of

X = torch.randn(2, 4, 3)


def test_the_layers_of_a_network() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5, bias=False))
    shape = shape_of(net, (X,), sketch=2)
    found = {(layer.tokens, layer.rows, layer.columns): layer.length for layer in shape.layers}
    assert found == {(4, 6, 3): 4, (0, 6, 1): 6, (4, 5, 6): 4}
    assert shape.forward == 2 * 4 * (3 * 6 + 6 * 5)
    assert (shape.output, shape.weights, shape.left_out) == (4 * 4 * 5, 4 * (18 + 6 + 30), ())


def test_a_convolution_and_what_no_rule_serves() -> None:
    net, inputs = CASES["conv_2d"](0, 2, torch.float32)
    assert any(layer.tokens > 1 and layer.columns % 3 == 0 for layer in shape_of(net, inputs).layers)
    net, inputs = CASES["recurrent_cells"](0, 2, torch.float32)
    assert any(name.startswith("lstm") for name in shape_of(net, inputs).left_out)


def test_work_of_one_layer_in_closed_form() -> None:
    shape = shape_of(nn.Linear(3, 8, bias=False), (X,), sketch=2)
    n, t, p, q = 100, 4, 8, 3
    alone = work_of(shape, n, probes=5)
    assert alone.passes == n * 6 + 8  # and the check
    assert alone.contraction == 5 * min(2 * (t + n) * n * p * q, 2 * n * n * t * t * (p + q))
    assert (alone.received, alone.meetings) == (0, 0)
    two = work_of(shape, n, probes=5, processes=2)
    assert two.passes == n * 3 + 8
    assert two.received == n * (5 * 4 * t * (p / 2 + q) + 4 * t * p) / 2 + 3 * 8 * n * n * 5 / 2
    assert two.meetings > 0
    assert two.memory < alone.memory + 2 * two.received
    sketched = work_of(shape, n, probes=5, sketched=True)
    assert sketched.contraction == 0
    assert sketched.signs == 5 * (p + q) * 2
    assert sketched.sketching == 5 * (2 * n * t * (p + q + 2) * 2 + n * n * 4)


@pytest.mark.parametrize("engine", ["streaming", "sketch"])
@pytest.mark.parametrize("name", ["linear_on_tokens", "conv_2d", "tied_module_called_twice"])
def test_processes_receive_what_is_counted(two_processes: ProcessGroup, name: str, engine: str) -> None:
    samples = 6
    module, inputs = CASES[name](0, samples, torch.float32)
    work = work_of(shape_of(module, inputs, sketch=2), samples, 2, 2, engine == "sketch")
    sums = 3 * 8 * samples**2 * 2 / 2
    for received in two_processes.run(shared_jobs.traffic, name, samples, engine=engine, sketch=2):
        assert received == pytest.approx(work.received - sums, rel=0.05)


def test_seconds() -> None:
    work = Work(10, 1e9, 2e9, 1e3, 7, 1e6, 5, 50)
    expected = 2 + 0.5 + 0.8 + 0.001 + 0.07 + 1 + 0.05 + 0.3
    assert Rates(2, 0.5, 0.4, 1e-6, 0.01, 1e-6, 0.01, 0.3).seconds(work, 0.1, 1e9) == pytest.approx(expected)
    assert work + work == Work(20, 2e9, 4e9, 2e3, 14, 2e6, 10, 50)
    assert work.operations(3.0) == 30 + 3e9
    assert pass_seconds(nn.Linear(3, 2), (X,)) > 0
    assert gemm_rate(64) > 0
