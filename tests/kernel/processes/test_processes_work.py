"""What a kernel costs is counted before it is computed: against formulas, and against what processes really exchange."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import shared_jobs
import torch
from cases import CASES
from process_group import ProcessGroup
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ntkdiag.kernel import gram_of
from ntkdiag.kernel.work import Kernel, Rates, Sweeps, Timed, Work, shape_of, speed_of, timed, work_of
from ntkdiag.kernel.work.operations import OperationCounter

X = torch.randn(2, 4, 3)


def test_the_layers_of_a_network() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5, bias=False))
    shape = shape_of(net, (X,), sketch=2)
    found = {(layer.tokens, layer.rows, layer.columns): layer.length for layer in shape.layers}
    assert found == {(4, 6, 3): 4, (0, 6, 1): 6, (4, 5, 6): 4}
    assert shape.forward == 2 * 4 * (3 * 6 + 6 * 5)
    assert (shape.output, shape.weights, shape.left_out) == (4 * 4 * 5, 4 * (18 + 6 + 30), ())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_operations_are_those_that_torch_counts_and_need_no_compiler(
    mode: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(counter: Any, make: Callable[..., Any]) -> bool:
        net, inputs = make(0, 2, torch.float32)
        try:
            with mode(), counter:
                net(*inputs)
        except Exception:  # some networks bear no mode of torch
            return False
        return True

    counters = {name: FlopCounterMode(display=False) for name in CASES}
    counters = {name: counter for name, counter in counters.items() if counted(counter, CASES[name])}
    assert len(counters) > 0.9 * len(CASES)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # from here on, its import fails
    for name, counter in counters.items():
        ours = OperationCounter()
        assert counted(ours, CASES[name]), name
        assert ours.total == counter.get_total_flops(), name


def test_a_convolution_and_what_no_rule_serves() -> None:
    net, inputs = CASES["conv_2d"](0, 2, torch.float32)
    assert any(layer.left > 1 and layer.columns % 3 == 0 for layer in shape_of(net, inputs).layers)
    net, inputs = CASES["recurrent_cells"](0, 2, torch.float32)
    assert any(name.startswith("lstm") for name in shape_of(net, inputs).left_out)


def test_work_of_one_layer_in_closed_form() -> None:
    shape = shape_of(nn.Linear(3, 8, bias=False), (X,), sketch=2)
    n, t, p, q = 100, 4, 8, 3
    alone = work_of(shape, Kernel(n, 5))
    assert alone.passes == n * 6 + 8  # and the check and the rehearsal
    assert alone.contraction == 5 * 2 * (t + n) * n * p * q
    assert (alone.received, alone.meetings) == (0, 0)
    two = work_of(shape, Kernel(n, 5, 2, checked=False, rehearsed=False))
    assert two.passes == n * 3
    # of 24 elements it takes 12, which are less than half of 4 · 8 and all of 4 · 3 numbers in the factors
    assert two.received == n * (5 * 4 * p * q / 2 + 4 * t * p) / 2 + 3 * 8 * n * n * 5 / 2
    assert two.meetings > 0
    sketched = work_of(shape, Kernel(n, 5, sketched=True))
    assert sketched.contraction == 0
    assert sketched.sketching == 5 * (2 * n * t * (p + q + 2) * 2 + n * n * 4)


def test_products_through_tokens_are_shared_by_pairs_of_processes() -> None:
    shape = shape_of(nn.Linear(300, 200, bias=False), (torch.randn(1, 300),))
    one, two, four = (work_of(shape, Kernel(64, 1, count)) for count in (1, 2, 4))
    assert one.contraction == 2 * 64 * 64 * 500
    assert (
        two.contraction == 0.375 * one.contraction
    )  # its own block, and every other of those between two processes
    assert four.contraction == 5 / 32 * one.contraction
    sums = 3 * 8 * 64**2
    assert two.received == 64 / 2 * (4 * 500 / 2 + 4 * 200) + sums / 2


def test_more_samples_than_fit_take_several_sweeps() -> None:
    """Against the engine: how often a sample passes through the network."""
    calls: list[int] = []
    net = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 2, bias=False))
    net.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    x, cotangents = torch.randn(43, 3), torch.ones(1, 2)
    shape = shape_of(net, (x,), sketch=4)
    memory = int(20 * 1.5 * shape.kept)
    for sketched, engine in ((False, "streaming"), (True, "sketch")):
        kernel = Kernel(43, 1, sketched=sketched, memory=memory)
        calls.clear()
        gram_of(net, (x,), cotangents, engine=engine, memory=memory, check=False, sketch=4)
        sweeps = Sweeps.of(shape, kernel)
        assert sweeps.count > 1
        assert sum(n for n in calls if n > 2) == sweeps.passed
        assert work_of(shape, kernel).passes == 2 * sweeps.passed + 8


@pytest.mark.parametrize("engine", ["streaming", "sketch"])
@pytest.mark.parametrize("name", ["linear_on_tokens", "conv_2d", "tied_module_called_twice"])
def test_processes_receive_what_is_counted(two_processes: ProcessGroup, name: str, engine: str) -> None:
    samples = 6
    module, inputs = CASES[name](0, samples, torch.float32)
    work = work_of(shape_of(module, inputs, sketch=2), Kernel(samples, 2, 2, engine == "sketch"))
    sums = 3 * 8 * samples**2 * 2 / 2
    for received in two_processes.run(shared_jobs.traffic, name, samples, engine=engine, sketch=2):
        assert received == pytest.approx(work.received - sums, rel=0.05)


def test_seconds() -> None:
    expected = 2 * 10 + 0.5 * 4 + 1e-6 * 1e6 + 0.01 * 5 + 0.3
    found = Timed(10, 4, 1e6, 5, 1)
    assert Rates(2, 0.5, 1e-6, 0.01, 0.3).seconds(found) == pytest.approx(expected)
    assert found + found == found.times(2) == Timed(20, 8, 2e6, 10, 2)
    work = Work(10, 1e9, 2e9, 1e6, 5, 50)
    assert work + work == Work(20, 2e9, 4e9, 2e6, 10, 50)
    assert work.operations(3.0) == 30 + 3e9


def test_what_is_timed_grows_with_what_is_asked() -> None:
    net, inputs = CASES["conv_2d"](0, 2, torch.float32)
    shape = shape_of(net, inputs)
    speed = speed_of(net, inputs, Kernel(64, 2))
    one = timed(shape, speed, Kernel(64, 2))
    assert min(one.passes, one.products, speed.rehearsal, speed.check) > 0
    assert timed(shape, speed, Kernel(64, 4)).passes > one.passes
    assert timed(shape, speed, Kernel(64, 4)).products == pytest.approx(2 * one.products)
    known = timed(shape, speed, Kernel(64, 2, checked=False, rehearsed=False))
    assert one.passes - known.passes == pytest.approx(speed.check + speed.rehearsal)
