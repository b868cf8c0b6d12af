"""The end-to-end check: faults planted in the engines are found, and the kernel is right all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_networks import normal, shaken
from networks.case import Net
from references import brute_gram, relative_error
from streaming_truth import cotangents_for
from torch import Tensor, nn

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel import check as check_module
from ntkdiag.kernel import exact, fallback, gram_of
from ntkdiag.kernel.check import CheckOnce
from ntkdiag.kernel.directions import given
from ntkdiag.kernel.engines import run
from ntkdiag.kernel.streaming import accumulate, engine, sweep
from ntkdiag.kernel.streaming.contraction.gradients import Dense, Outer, as_dense
from ntkdiag.kernel.streaming.rules import convolution

Patch = pytest.MonkeyPatch
Faults = dict[str, Callable[[Patch], None]]


def network() -> nn.Module:
    """A convolution in groups, a layer that is used twice, and a parameter that no rule serves."""

    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = m.conv(x).flatten(2).mT
        tokens = m.twice(m.twice(tokens).tanh()).tanh()
        return m.out(tokens) + torch.einsum("ntc,ntc,kc->ntk", tokens, tokens, m.far)

    parts = {
        "conv": nn.Conv2d(4, 4, 3, padding=1, groups=2),
        "twice": nn.Linear(4, 4),
        "out": nn.Linear(4, 3),
    }
    return shaken(Net(forward, far=normal(3, 4, seed=9), **parts)).eval()


def changed_use(number: int, change: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """A change of the gradients of one use of the layer that is used twice; None leaves it out."""

    def plant(patch: Patch) -> None:
        original, seen = accumulate.Accumulator.add, []

        def add(self: Any, parameter: Any, gradient: Any) -> None:
            if "twice.weight" in parameter.leaves:
                seen.append(1)
                if len(seen) % 2 == number:
                    changed = change(gradient)
                    return original(self, parameter, changed)
            return original(self, parameter, gradient)

        patch.setattr(accumulate.Accumulator, "add", add)

    return plant


def every_outer(change: Callable[[Outer], Outer]) -> Callable[[Patch], None]:
    """A change of every outer product before its contraction."""

    def plant(patch: Patch) -> None:
        original = accumulate.blocks
        patch.setattr(
            accumulate,
            "blocks",
            lambda gradient, scale=None: original(
                change(gradient) if isinstance(gradient, Outer) else gradient, scale
            ),
        )

    return plant


def use_counted_twice(patch: Patch) -> None:
    original = accumulate.Accumulator.add

    def add(self: Any, parameter: Any, gradient: Any) -> None:
        if "out.weight" in parameter.leaves:
            gradient = replace(gradient, left=2 * gradient.left)
        original(self, parameter, gradient)

    patch.setattr(accumulate.Accumulator, "add", add)


def tied_weight_counted_once(patch: Patch) -> None:
    """Each use is contracted by itself: the sum of Grams instead of the Gram of the sum."""
    original = sweep._uses
    patch.setattr(sweep, "_uses", lambda *args: Counter(dict.fromkeys(original(*args), 1)))


def bias_left_out(patch: Patch) -> None:
    original = accumulate.Accumulator.add

    def add(self: Any, parameter: Any, gradient: Any) -> None:
        if "conv.bias" not in parameter.leaves:
            original(self, parameter, gradient)

    patch.setattr(accumulate.Accumulator, "add", add)


def samples_permuted(patch: Patch) -> None:
    original = accumulate.Accumulator._take

    def take(self: Any, name: str, gradient: Any, scale: Any) -> None:
        original(self, name, Dense(as_dense(gradient).rows.roll(1, 0)), scale)

    patch.setattr(accumulate.Accumulator, "_take", take)


def wrong_group_of_a_convolution(patch: Patch) -> None:
    original = convolution._window_products
    patch.setattr(
        convolution, "_window_products", lambda grad, padded, *rest: original(grad, padded.flip(2), *rest)
    )


def wrong_tile(patch: Patch) -> None:
    """Tiles of two samples; the pair of the first and the last tile is written where the first one is."""
    original = engine.sweep
    patch.setattr(engine, "samples_that_fit", lambda *ignored: 4)

    def wrong(task: Any, inputs: Any, picked: Tensor, rehearsal: Any, coverage: Any) -> Any:
        found = original(task, inputs, picked, rehearsal, coverage)
        return replace(found, grams={key: gram.flip(1, 2) for key, gram in found.grams.items()})

    patch.setattr(engine, "sweep", wrong)


def forgotten_tile(patch: Patch) -> None:
    original = engine._plan
    patch.setattr(engine, "samples_that_fit", lambda *ignored: 4)
    patch.setattr(
        engine, "_plan", lambda samples, tile: [original(samples, tile)[0], original(samples, tile)[-1]]
    )


def fallback_forgotten(patch: Patch) -> None:
    patch.setattr(engine, "add_grams", lambda grams, others: None)


def wrong_exact_engine(patch: Patch) -> None:
    original = exact._vectorised
    patch.setattr(exact, "_vectorised", lambda *args: {n: 1.1 * rows for n, rows in original(*args).items()})


FAULTS: Faults = {
    "a use dropped": changed_use(0, lambda gradient: replace(gradient, left=0 * gradient.left)),
    "a sign": changed_use(0, lambda gradient: replace(gradient, left=-gradient.left)),
    "a transposed layout": changed_use(0, lambda gradient: Outer(gradient.right, gradient.left)),
    "a scale of 1/T": every_outer(lambda outer: replace(outer, left=outer.left / outer.left.shape[1])),
    "a wrong tile": wrong_tile,
    "a forgotten tile": forgotten_tile,
    "a tied weight counted once": tied_weight_counted_once,
    "a use counted twice": use_counted_twice,
    "a bias left out": bias_left_out,
    "samples permuted": samples_permuted,
    "a wrong group of a convolution": wrong_group_of_a_convolution,
    "parameters of the slow engine left out": fallback_forgotten,
    "an exact engine that is off by a tenth": wrong_exact_engine,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_the_kernel_is_right(fault: str, monkeypatch: Patch) -> None:
    module, inputs = network(), (normal(5, 4, 3, 3),)
    cotangents = cotangents_for(module, inputs)
    truth = brute_gram(module, inputs, cotangents)
    FAULTS[fault](monkeypatch)
    unchecked = gram_of(module, inputs, cotangents, check=False)
    assert relative_error(unchecked, truth) > 1e-3, "the fault changes nothing"
    found = run(module, inputs, given(cotangents))
    assert relative_error(found.per_probe, truth) < 1e-12
    assert any("plain autograd" in how for how in found.coverage.values())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_found_in_lower_precision_too(fault: str, dtype: torch.dtype, monkeypatch: Patch) -> None:
    small = (
        "an exact engine that is off by a tenth",
        "a wrong tile",
        "parameters of the slow engine left out",
    )
    if dtype == torch.bfloat16 and fault in small:  # no larger than the rounding that is allowed there
        return
    module, inputs = network().to(dtype), (normal(5, 4, 3, 3, dtype=dtype),)
    FAULTS[fault](monkeypatch)
    found = run(module, inputs, given(cotangents_for(module, inputs)))
    assert any("plain autograd" in how for how in found.coverage.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_nothing_is_found_where_nothing_is_wrong(dtype: torch.dtype) -> None:
    module, inputs = network().to(dtype), (normal(5, 4, 3, 3, dtype=dtype),)
    coverage = run(module, inputs, given(cotangents_for(module, inputs))).coverage
    assert not any("plain autograd" in how for how in coverage.values())


@pytest.fixture
def full_comparisons(monkeypatch: Patch) -> list[int]:
    """A number for each time that the pair of samples in one batch leaves a doubt."""
    original, seen = check_module.truth_of, []
    monkeypatch.setattr(check_module, "truth_of", lambda *args: (seen.append(1), original(*args))[1])
    return seen


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (1e-2, 1e2), (1e2, 1e-2)])
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if "engine" not in fault])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_pair_in_one_batch_sees_each_fault(
    fault: str,
    dtype: torch.dtype,
    sizes: tuple[float, float],
    full_comparisons: list[int],
    monkeypatch: Patch,
) -> None:
    module, x = network().to(dtype), normal(5, 4, 3, 3, dtype=dtype)
    x[0], x[-1] = sizes[0] * x[0], sizes[1] * x[-1]
    module.far.requires_grad_(False)  # rules serve all the others
    FAULTS[fault](monkeypatch)
    gram_of(module, (x,), cotangents_for(module, (x,)))
    assert full_comparisons


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (1e-2, 1e2), (1e2, 1e-2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_pair_in_one_batch_leaves_no_doubt_where_nothing_is_wrong(
    dtype: torch.dtype, sizes: tuple[float, float], full_comparisons: list[int]
) -> None:
    module, x = network().to(dtype), normal(5, 4, 3, 3, dtype=dtype)
    x[0], x[-1] = sizes[0] * x[0], sizes[1] * x[-1]
    module.far.requires_grad_(False)
    gram_of(module, (x,), cotangents_for(module, (x,)))
    assert not full_comparisons


class MeanGradient(torch.autograd.Function):
    """A gradient that is divided by the number of samples in the batch, as by a mean inside the network."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / len(gradients[0])


def test_a_backward_that_depends_on_the_batch_is_measured_sample_by_sample() -> None:
    net = Net(
        lambda m, x: m.out(MeanGradient.apply(m.first(x))), first=nn.Linear(4, 3), out=nn.Linear(3, 2)
    ).double()
    x = normal(5, 4)
    cotangents = cotangents_for(net, (x,))
    assert relative_error(gram_of(net, (x,), cotangents), brute_gram(net, (x,), cotangents)) < 1e-12


def test_only_the_parameter_at_fault_goes_to_a_slower_engine(monkeypatch: Patch) -> None:
    bias_left_out(monkeypatch)
    module, inputs = network(), (normal(5, 4, 3, 3),)
    found = run(module, inputs, given(cotangents_for(module, inputs)))
    assert found.coverage["conv.bias"] == "exact (differs from plain autograd by 1 of its size)"
    assert found.coverage["conv.weight"] == "convolution"
    wrong_exact_engine(monkeypatch)
    found = run(module, inputs, given(cotangents_for(module, inputs)))
    reasons = (
        "differs from plain autograd by 1 of its size; exact differs from plain autograd by 0.21 of its size"
    )
    assert found.coverage["conv.bias"] == f"autograd ({reasons})"
    assert found.engine == "streaming + autograd"


def test_no_engine_that_agrees_is_an_error(monkeypatch: Patch) -> None:
    original = fallback.grouped_grams
    monkeypatch.setattr(
        fallback, "grouped_grams", lambda *args: {key: 2 * gram for key, gram in original(*args).items()}
    )
    module, inputs = network(), (normal(5, 4, 3, 3),)
    words = "kernel: expected what plain autograd finds for two samples; got autograd: the sum over parameters differs"
    with pytest.raises(MeasurementError, match=words):
        gram_of(module, inputs, torch.ones(1, 9, 3), engine="autograd")


def test_a_shared_check_looks_once_and_remembers(monkeypatch: Patch) -> None:
    runs: list[int] = []
    module, inputs = network(), (normal(5, 4, 3, 3),)
    module.register_forward_pre_hook(lambda m, args: runs.append(len(args[0])))
    cotangents = cotangents_for(module, inputs)
    truth = brute_gram(module, inputs, cotangents)
    bias_left_out(monkeypatch)
    check = CheckOnce()
    assert relative_error(gram_of(module, inputs, cotangents, check=check), truth) < 1e-12
    runs.clear()
    found = run(module, inputs, given(cotangents), check=check)
    assert relative_error(found.per_probe, truth) < 1e-12
    assert found.coverage["conv.bias"].startswith("exact (differs from plain autograd")
    assert runs.count(1) == len(cotangents)  # the exact engine's vmap over samples; no sample alone
