"""The parts of the streaming engine on their own: contraction, sample axes, broadcasting, pull-backs and convolutions."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.case import normal
from references import brute_gram, relative_error
from streaming_truth import cotangents_for, streamed
from torch import Tensor, nn

from ntkdiag.kernel.streaming.accumulate import Accumulator
from ntkdiag.kernel.streaming.contraction import contract as contraction
from ntkdiag.kernel.streaming.contraction.broadcasting import reduce_to, summed
from ntkdiag.kernel.streaming.contraction.contract import contract, through_tokens_is_cheaper
from ntkdiag.kernel.streaming.contraction.gradients import Compressed, Dense, Outer
from ntkdiag.kernel.streaming.recording.derived import (
    derived_parameter,
    parameter_itself,
    pull_back,
    sum_over_copies,
)
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis
from ntkdiag.kernel.streaming.sample_axis.detection import ReferenceSlices, candidate_axes

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def doubles(*shape: int) -> Tensor:
    return normal(*shape).double()


# --- contraction


@pytest.mark.parametrize(
    ("samples", "tokens", "p", "q"), [(1, 1, 1, 1), (3, 1, 5, 4), (4, 6, 5, 3), (4, 2, 3, 9), (2, 50, 7, 2)]
)
@pytest.mark.parametrize("tile_bytes", [1, 200, 10**6])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_way_of_contracting_is_the_product_of_gradients(
    samples: int,
    tokens: int,
    p: int,
    q: int,
    tile_bytes: int,
    weighted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(contraction.TILE_BYTES, "cpu", tile_bytes)
    monkeypatch.setattr(contraction, "TOKEN_BLOCK_BYTES", tile_bytes)
    gradient = Outer(doubles(samples, tokens, p), doubles(samples, tokens, q))
    rows = gradient.dense().rows.flatten(1)
    weight = doubles(p, q).abs() if weighted else None
    truth = rows @ rows.T if weight is None else rows * weight.flatten() @ rows.T
    torch.testing.assert_close(contract(gradient, weight), truth, **CLOSE)
    if not weighted:
        torch.testing.assert_close(
            contraction._materialised(gradient.left, gradient.right, None), truth, **CLOSE
        )
        for found in (
            contraction.through_tokens(gradient.left, gradient.right),
            contraction.blocks(gradient),
        ):
            gram = torch.zeros(samples, samples, dtype=torch.float64)
            for block in found:
                block.add_to(gram)
            contraction.mirror(gram)
            torch.testing.assert_close(gram, truth, **CLOSE)


def test_the_way_is_chosen_by_count() -> None:
    """One token: through tokens. DiT-XL's attention at 256 tokens: materialised, by far."""
    assert through_tokens_is_cheaper(16, 1, 1152, 6912)
    assert not through_tokens_is_cheaper(64, 256, 1152, 3456)


def test_compressed_gradients_are_those_of_the_whole_table() -> None:
    gradient = Compressed(doubles(3, 4), torch.tensor([7, 0, 3, 5]), 10)
    rows, weight = gradient.dense().rows, doubles(10).abs()
    assert rows.shape == (3, 10)
    torch.testing.assert_close(contract(gradient), rows @ rows.T, **CLOSE)
    torch.testing.assert_close(contract(gradient, weight), rows * weight @ rows.T, **CLOSE)


# --- sample axes


def folded(x: Tensor, outer: int, inner: int) -> Tensor:
    """[N, outer, inner, d] → [outer·N·inner, d]."""
    return x.transpose(0, 1).reshape(outer * len(x) * inner, -1)


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(2, 7), outer=st.integers(1, 6), inner=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_sample_axis_is_found_from_activations(samples: int, outer: int, inner: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, outer, inner, 3, generator=generator, dtype=torch.float64)
    chosen = torch.tensor([samples - 1])
    few = ReferenceSlices.of(folded(x[chosen], outer, inner))
    found = candidate_axes(folded(x, outer, inner), few, chosen, samples)
    assert [candidate.axis for candidate in found] == [SampleAxis(0, outer, samples, inner)]
    assert found[0].difference == 0
    rows = found[0].axis.rows(folded(x, outer, inner), 1)
    assert torch.equal(rows, x.flatten(1, 2))


@pytest.mark.parametrize("shape", [(4, 3, 20), (3, 4, 20), (3, 20, 4), (4,), (3, 4)])
def test_samples_are_found_in_any_dimension(shape: tuple[int, ...]) -> None:
    dim, chosen = shape.index(4), torch.tensor([3, 0, 3])
    x = doubles(*shape)
    found = candidate_axes(x, ReferenceSlices.of(x.index_select(dim, chosen)), chosen, 4)
    assert [candidate.axis for candidate in found] == [SampleAxis(dim, 1, 4, 1)]


def test_many_samples_in_the_last_dimension_are_compared_whole() -> None:
    x, chosen = doubles(3, 20, 12), torch.tensor([11])
    few = ReferenceSlices.of(x[..., chosen])
    assert [candidate.axis for candidate in candidate_axes(x, few, chosen, 12)] == [SampleAxis(2, 1, 12, 1)]
    assert candidate_axes(x.flip(2), few, chosen, 12)[0].difference > 0.1


def test_equal_rows_leave_every_axis_possible_and_noise_does_not_decide() -> None:
    x = torch.ones(12, 5) + 1e-7 * normal(12, 5)
    found = candidate_axes(x, ReferenceSlices.of(x[:4]), torch.tensor([2]), 3)
    assert {candidate.axis for candidate in found} == {SampleAxis(0, o, 3, 4 // o) for o in (1, 2, 4)}
    assert found[0].difference < 1e-5


def test_shapes_without_a_sample_axis_have_no_candidate() -> None:
    few, chosen = ReferenceSlices.of(torch.ones(2, 5)), torch.tensor([2])
    assert candidate_axes(torch.ones(2, 5), few, chosen, 3) == []  # does not grow
    assert candidate_axes(torch.ones(6, 15), few, chosen, 3) == []  # grows twice
    assert candidate_axes(torch.ones(5, 5), few, chosen, 3) == []  # not by the number of samples
    assert (
        candidate_axes(torch.ones(3, 5), few, chosen, 3) == []
    )  # another number a sample than in the second forward
    assert candidate_axes(torch.ones(6, 5, 1), few, chosen, 3) == []


def test_a_sample_axis_refuses_tensors_that_do_not_have_it() -> None:
    axis = SampleAxis(1, 1, 3, 2)
    assert axis.first(torch.ones(5, 6, 4)).shape == (3, 5, 1, 2, 4)
    assert axis.rows(torch.ones(5, 6, 4), 1).shape == (3, 10, 4)
    for tensor, trailing in [(torch.ones(5, 5, 4), 1), (torch.ones(6), 0), (torch.ones(5, 6), 1)]:
        with pytest.raises(Unsupported):
            axis.rows(tensor, trailing)


# --- broadcasting


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_summed_is_the_transpose_of_broadcasting(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    keep = data.draw(st.integers(0, len(shape)))
    target = [data.draw(st.sampled_from([1, size])) for size in shape[len(shape) - keep :]]
    rows = doubles(2, *shape)
    parameter = doubles(*target).requires_grad_()
    truth = torch.stack([torch.autograd.grad(parameter.expand(shape), parameter, row)[0] for row in rows])
    torch.testing.assert_close(summed(Dense(rows), torch.Size(shape), parameter.shape).rows, truth, **CLOSE)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_gradient_is_reduced_sample_by_sample(data: st.DataObject) -> None:
    """Also where the parameter has rows of its own for each sample."""
    dims = data.draw(st.integers(1, 4))
    at, samples = data.draw(st.integers(0, dims - 1)), data.draw(st.integers(1, 4))
    outer, inner = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    shape = [data.draw(st.integers(1, 3)) for _ in range(dims)]
    shape[at] = outer * samples * inner
    target = [data.draw(st.sampled_from([1, size])) for size in shape[data.draw(st.integers(0, dims)) :]]
    parameter, grad, axis = (
        doubles(*target).requires_grad_(),
        doubles(*shape),
        SampleAxis(at, outer, samples, inner),
    )
    found = pull_back(parameter_itself("p", parameter), reduce_to(grad, parameter, axis))["p"]
    for i in range(samples):
        alone = torch.zeros_like(grad)
        axis.first(alone)[i] = axis.first(grad)[i]
        (truth,) = torch.autograd.grad(parameter.expand(shape), parameter, alone)
        torch.testing.assert_close(found[i], truth, **CLOSE)


# --- derived parameters


def test_rows_of_a_parameter_that_belong_to_one_sample_each() -> None:
    """No two samples share such a row: the kernel is diagonal."""
    leaf = doubles(3, 4).requires_grad_()
    accumulator = Accumulator(["p"], Counter(p=1), 1, 3, lambda name: "all", {}, torch.device("cpu"))
    accumulator.start(0)
    rows = doubles(3, 1, 1, 4)
    accumulator.add(parameter_itself("p", leaf), Dense(rows, SampleAxis(0, 1, 3, 1)))
    accumulator.finish()
    torch.testing.assert_close(accumulator.grams["all"][0], rows.square().sum((1, 2, 3)).diag(), **CLOSE)


VIEWS = [
    lambda p: p,
    lambda p: p.T,
    lambda p: p[1:3],
    lambda p: p[:, ::2],
    lambda p: p.reshape(2, 12)[1],
    lambda p: p.reshape(-1)[3:],
    lambda p: p.chunk(2, 1)[1].T,
    lambda p: p[2, 3],
    lambda p: p.expand(2, 4, 6),
    lambda p: p.unfold(1, 3, 1),
    lambda p: p.diagonal(),
    lambda p: torch.stack([p, 2 * p]),
    lambda p: p / p.norm(),
]


LEAVES = {
    "contiguous": doubles(4, 6),
    "strided": doubles(6, 8)[:, ::2].T,
    "repeated": doubles(1, 6).expand(4, 6),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("memory", LEAVES)
def test_pull_backs_are_autograds_and_geometry_means_inner_products_are_kept(
    view: object, memory: str
) -> None:
    leaf = LEAVES[memory].detach().requires_grad_()
    assert callable(view)
    tensor = view(leaf)
    parent = parameter_itself("p", leaf)
    parameter = parent if tensor is leaf else derived_parameter(tensor, [parent])
    rows = doubles(3, *tensor.shape)
    truth = torch.stack([torch.autograd.grad(tensor, leaf, row, retain_graph=True)[0] for row in rows])
    found = pull_back(parameter, Dense(rows))["p"]
    torch.testing.assert_close(found, truth, **CLOSE)
    if parameter.view is not None:
        flat, shown = found.reshape(3, -1), rows.reshape(3, -1)
        torch.testing.assert_close(flat @ flat.T, shown @ shown.T, **CLOSE)
        if parameter.view.in_order:
            torch.testing.assert_close(flat, shown, **CLOSE)


def test_what_is_copies_is_gathered_before_it_is_pulled_back() -> None:
    leaf = doubles(1, 4).requires_grad_()
    parent = parameter_itself("p", leaf)
    for copies in (leaf.expand(3, 4), leaf.repeat(3, 1), leaf.repeat_interleave(3, 0)):
        parameter, gradient = sum_over_copies(
            derived_parameter(copies, [parent], expanded=True), Dense(doubles(2, 3, 4))
        )
        assert parameter is parent
        assert isinstance(gradient, Dense)
        assert gradient.rows.shape == (2, 1, 4)
    tiled = leaf.repeat(1, 2)  # not a broadcast: every element comes twice
    parameter, gradient = sum_over_copies(
        derived_parameter(tiled, [parent], expanded=True), Dense(doubles(2, 1, 8))
    )
    assert parameter.tensor is tiled


# --- convolutions over their options


def convolutions() -> list[tuple[type[nn.Module], dict[str, object], tuple[int, ...]]]:
    """Random combinations of every option."""
    draw = random.Random(0)
    kinds = [(nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3), (nn.ConvTranspose1d, 1), (nn.ConvTranspose2d, 2),
             (nn.ConvTranspose3d, 3)]  # fmt: skip
    found = []
    for (kind, space), _ in itertools.product(kinds, range(12)):
        groups = draw.choice([1, 2])
        stride = [draw.choice([1, 2, 3]) for _ in range(space)]
        dilation = [draw.choice([1, 2]) for _ in range(space)]
        options = {
            "in_channels": 2 * groups, "out_channels": groups * draw.choice([1, 2]), "groups": groups,
            "kernel_size": [draw.choice([1, 2, 3]) for _ in range(space)], "dilation": dilation, "stride": stride,
            "padding": [draw.choice([0, 1]) for _ in range(space)], "bias": draw.random() < 0.5,
        }  # fmt: skip
        if "Transpose" in kind.__name__:
            options["output_padding"] = [
                draw.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)
            ]
        found.append((kind, options, (2 * groups, *(draw.choice([5, 6]) for _ in range(space)))))
    return found


def test_convolutions_with_random_options() -> None:
    for kind, options, shape in convolutions():
        net, inputs = kind(**options).double(), (doubles(2, *shape),)
        cotangents = cotangents_for(net, inputs, probes=1)
        found = streamed(net, inputs, cotangents)
        assert relative_error(found.per_probe, brute_gram(net, inputs, cotangents)) < 1e-12, (kind, options)
        assert not any(how.startswith("exact") for how in found.coverage.values())


def test_windows_are_unfolded_a_few_samples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntkdiag.kernel.streaming.rules.convolution.WINDOW_BYTES", {"cuda": 1})
    net, inputs = nn.Conv2d(2, 3, 3).double(), (doubles(5, 2, 5, 5),)
    cotangents = cotangents_for(net, inputs)
    assert (
        relative_error(streamed(net, inputs, cotangents).per_probe, brute_gram(net, inputs, cotangents))
        < 1e-12
    )
