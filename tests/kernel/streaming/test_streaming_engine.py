"""The streaming engine as a whole: tiles, memory, fallbacks and the coverage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import CASES
from networks.case import Net, normal
from references import brute_gram, brute_rows, relative_error
from streaming_truth import cotangents_for, streamed
from torch import Tensor, nn

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel import gram_of
from ntkdiag.kernel.preconditioner import adam
from ntkdiag.kernel.streaming import accumulate
from ntkdiag.kernel.streaming import engine as engine_room
from ntkdiag.kernel.streaming import memory as budget
from ntkdiag.kernel.streaming.contraction.contract import Block
from ntkdiag.kernel.streaming.sweep import sweep as plain_sweep

# torch warns where it has no batching rule, and falls back to a loop
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SOME = [
    "linear_layers",
    "tied_over_time",
    "folded_sample_minor",
    "tokens_expanded",
    "recurrent_cells",
    "conv_over_frames",
]


# --- tiles and memory


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("memory", [1, 2_000, 10**9])
def test_memory_decides_the_tiles_and_not_the_result(name: str, memory: int) -> None:
    module, inputs = CASES[name](seed=0, samples=5)
    cotangents = cotangents_for(module, inputs)
    found = streamed(module, inputs, cotangents, memory=memory).per_probe
    assert relative_error(found, brute_gram(module, inputs, cotangents)) < 1e-10


@pytest.mark.parametrize(
    ("samples", "tile"), [(1, 1), (2, 1), (3, 1), (5, 2), (6, 2), (7, 3), (8, 8), (9, 20)]
)
def test_a_plan_covers_every_pair_and_no_sweep_is_larger_than_two_tiles(samples: int, tile: int) -> None:
    sweeps = [set(picked.tolist()) for picked in engine_room._plan(samples, tile)]
    pairs = {(a, b) for a in range(samples) for b in range(samples)}
    assert pairs == {(a, b) for sweep in sweeps for a in sweep for b in sweep}
    assert all(len(sweep) <= 2 * tile for sweep in sweeps)
    tiles = -(-samples // tile)
    assert len(sweeps) == max(1, tiles * (tiles - 1) // 2)


def sweeps_seen(monkeypatch: pytest.MonkeyPatch, limit: int, error: Exception) -> list[int]:
    """Sweeps of more than `limit` samples run out of memory; returns the sizes tried, as they come."""
    sizes: list[int] = []

    def sweep(task: Any, inputs: tuple[Tensor, ...], *rest: Any) -> Any:
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > limit:
            raise error
        return plain_sweep(task, inputs, *rest)

    monkeypatch.setattr(engine_room, "sweep", sweep)
    return sizes


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_makes_tiles_smaller(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    module, inputs = CASES["linear_on_tokens"](seed=0, samples=9)
    cotangents = cotangents_for(module, inputs)
    sizes = sweeps_seen(monkeypatch, 3, error)
    found = streamed(module, inputs, cotangents).per_probe
    assert relative_error(found, brute_gram(module, inputs, cotangents)) < 1e-10
    failed = [size for size in sizes if size > 3]
    assert failed == [9, 4]  # each attempt is half as large as the one before it
    assert len(sizes) > len(failed)


def test_out_of_memory_in_the_middle_of_a_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large sweep dies while it forms gradients, and leaves nothing in the result."""
    module, inputs = CASES["attention_self"](seed=0, samples=6)
    cotangents = cotangents_for(module, inputs)
    whole = accumulate.blocks
    calls = 0

    def failing(form: Any, weight: Tensor | None = None) -> list[Block]:
        nonlocal calls
        calls += 1
        found = list(whole(form, weight))
        if len(found[0].values) == 6 and calls == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return found

    monkeypatch.setattr(accumulate, "blocks", failing)
    found = streamed(module, inputs, cotangents).per_probe
    assert calls > 3
    assert relative_error(found, brute_gram(module, inputs, cotangents)) < 1e-10


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_memory_that_does_not_suffice_for_one_pair_is_an_error(
    monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    module, inputs = CASES["linear_layers"](seed=0, samples=samples)
    cotangents = cotangents_for(module, inputs)
    sizes = sweeps_seen(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(torch.OutOfMemoryError):
        streamed(module, inputs, cotangents)
    assert sizes[-1] == min(samples, 2)


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = CASES["linear_layers"](seed=0, samples=5)
    cotangents = cotangents_for(module, inputs)
    sizes = sweeps_seen(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    found = streamed(module, inputs, cotangents)
    assert sizes == [5]
    assert relative_error(found.per_probe, brute_gram(module, inputs, cotangents)) < 1e-12
    reason = "exact (streaming: RuntimeError: mat1 and mat2 shapes cannot be multiplied)"
    assert set(found.coverage.values()) == {reason}
    assert found.engine == "exact"


def test_the_budget_counts_samples() -> None:
    assert budget.samples_that_fit(100.0, 1000, torch.device("cpu")) == 6
    assert budget.samples_that_fit(100.0, 0, torch.device("cpu")) == 1
    assert budget.samples_that_fit(1.0, None, torch.device("cpu")) > 1000


def test_memory_is_counted_by_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations that rules keep count as much as those autograd keeps."""
    seen: list[float] = []

    def fits(size: float, *rest: Any) -> int:
        seen.append(size)
        return 100

    monkeypatch.setattr(engine_room, "samples_that_fit", fits)
    net = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 2)).double()
    for samples in (2, 9):
        inputs = (torch.ones(samples, 100, dtype=torch.float64),)
        streamed(net, inputs, cotangents_for(net, inputs))
    assert seen[0] == seen[1]
    assert 150 * 8 <= seen[0] <= 300 * 8


# --- what is measured


def test_one_probe_at_a_time_is_all_probes_together() -> None:
    module, inputs = CASES["attention_self"](seed=0)
    cotangents = cotangents_for(module, inputs, probes=3)
    together = streamed(module, inputs, cotangents).per_probe
    for probe in range(3):
        alone = streamed(module, inputs, cotangents[probe : probe + 1]).per_probe
        torch.testing.assert_close(together[probe], alone[0], rtol=1e-12, atol=1e-14)


def test_a_probe_that_passes_only_some_uses_of_a_parameter_says_nothing_of_the_others() -> None:
    """The first output never sees the second use; whether it is waited for must not carry over to the next probe."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return torch.cat([m.shared(x), m.shared(m.shared(x).tanh())], 1)

    net, x = Net(forward, shared=nn.Linear(4, 4)).double(), torch.randn(3, 4, dtype=torch.float64)
    cotangents = torch.zeros(3, 3, 8, dtype=torch.float64)
    cotangents[0, :, 0], cotangents[1, :, 7], cotangents[2, :, 0] = 1.0, 1.0, 1.0
    found = streamed(net, (x,), cotangents).per_probe
    assert relative_error(found, brute_gram(net, (x,), cotangents)) < 1e-12
    assert torch.equal(found[0], found[2])


def test_cotangents_shared_by_all_samples_are_expanded() -> None:
    module, inputs = CASES["linear_on_tokens"](seed=0, samples=5)
    shared = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = brute_gram(module, inputs, shared.unsqueeze(1).expand(2, 5, 9))
    assert relative_error(streamed(module, inputs, shared).per_probe, truth) < 1e-12
    assert relative_error(streamed(module, inputs, shared, memory=1).per_probe, truth) < 1e-12


def test_the_kernel_is_symmetric_and_positive_semi_definite() -> None:
    module, inputs = CASES["conv_2d"](seed=0, samples=7)
    found = streamed(module, inputs, cotangents_for(module, inputs)).per_probe
    assert relative_error(found.mT, found) < 1e-14
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-12 * float(found.abs().max())


@pytest.mark.parametrize("patterns", ["0.*", ["0.*", "5.bias"], "3.weight", "*"])
def test_parameters_by_pattern_frozen_ones_among_them(patterns: str | list[str]) -> None:
    module, inputs = CASES["frozen_parameters"](seed=0)
    cotangents = cotangents_for(module, inputs)
    found = streamed(module, inputs, cotangents, params=patterns)
    truth = brute_gram(module, inputs, cotangents, list(found.coverage))
    assert relative_error(found.per_probe, truth) < 1e-12
    assert not module[0].weight.requires_grad
    assert module[5].weight.requires_grad


@pytest.mark.parametrize(
    "name", ["low_rank_update", "views", "conv_channels_last", "tied_transposed", "table_with_padding"]
)
def test_the_kernel_that_adam_follows(name: str) -> None:
    module, inputs = CASES[name](seed=0)
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad], lr=1e-3, betas=(0.9, 0.99)
    )
    for step in range(2):
        module.zero_grad()
        (module(*inputs) - step).square().mean().backward()
        for parameter in module.parameters():  # a table's untouched rows have a second moment of zero
            if parameter.grad is not None:
                parameter.grad += 1e-3
        optimizer.step()
    module.zero_grad()
    cotangents = cotangents_for(module, inputs)
    scale = adam(optimizer, module)
    total = torch.zeros(())
    for key, rows in brute_rows(module, inputs, cotangents).items():
        state = optimizer.state[dict(module.named_parameters())[key]]
        root = (state["exp_avg_sq"] / (1 - 0.99**2)).sqrt() + 1e-8
        total = total + rows / root.flatten() @ rows.mT
    found = gram_of(module, inputs, cotangents, preconditioner=scale)
    assert relative_error(found, total) < 1e-10
    assert (
        relative_error(gram_of(module, inputs, cotangents, preconditioner=scale, engine="exact"), total)
        < 1e-10
    )


# --- groups


def test_groups_hold_unused_and_refused_parameters_too() -> None:
    module, inputs = CASES["recurrent_cells"](seed=0)
    module.spare = nn.Linear(2, 2).double()
    cotangents = cotangents_for(module, inputs)
    found = streamed(module, inputs, cotangents, group=lambda name: name.split(".")[0])
    exact = gram_of(module, inputs, cotangents, engine="exact")
    assert set(found.groups) == {"lstm", "gru", "cell", "out", "spare"}
    assert not found.groups["spare"].any()
    assert relative_error(sum(found.groups.values(), torch.zeros(())), exact) < 1e-10


# --- coverage


REASONS = [
    ("products_without_a_rule", "pair.weight", "exact (bilinear: no rule)"),
    ("einsum_refused", "three", "exact (einsum: other than an equation and two operands)"),
    (
        "table_bag_refused",
        "largest.weight",
        "exact (embedding_bag: an embedding bag with offsets, weights, padding or maxima)",
    ),
    ("recurrent_cells", "lstm.weight_ih_l0", "exact (lstm: no rule)"),
    ("custom_function", "inside", "exact (reaches the output by an operation that cannot be seen)"),
    ("gradient_inside", "layer.weight", "exact (a gradient is taken inside the forward)"),
    ("complex_weight", "spectrum", "exact (mul: complex numbers)"),
    ("tokens_written_into", "token", "exact (add_: a parameter that the batch is written into)"),
    ("tied_embedding", "table.weight", "embedding, linear"),
    ("unused_parameters", "alone", "unused"),
]


@pytest.mark.parametrize(("name", "parameter", "reason"), REASONS)
def test_coverage_says_which_way_was_taken_and_why(name: str, parameter: str, reason: str) -> None:
    module, inputs = CASES[name](seed=0)
    found = streamed(module, inputs, cotangents_for(module, inputs))
    assert found.coverage[parameter] == reason
    trainable = [key for key, p in module.named_parameters() if p.requires_grad]
    assert list(found.coverage) == trainable


def test_what_is_refused_only_during_the_backward_is_left_to_the_exact_engine() -> None:
    """A convolution along the samples: its rule finds out when it sees where the samples are."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.conv(x.T.unsqueeze(0)).squeeze(0).T  # samples are the positions of one image
        return m.out(y)

    net = Net(forward, conv=nn.Conv1d(4, 3, 1), out=nn.Linear(3, 2)).double()
    inputs = (torch.randn(3, 4, dtype=torch.float64),)
    cotangents = cotangents_for(net, inputs)
    found = streamed(net, inputs, cotangents)
    assert relative_error(found.per_probe, brute_gram(net, inputs, cotangents)) < 1e-12
    assert found.coverage["conv.weight"].startswith("exact (convolution: ")
    assert found.coverage["out.weight"] == "linear"


def test_layers_that_some_samples_skip_are_left_to_the_exact_engine() -> None:
    """The forward over all samples then takes other operations than the one over a few."""

    def forward(m: Net, x: Tensor) -> Tensor:
        positive = x[:, :1] > 0
        y = m.always(x)
        if positive.any():
            y = torch.where(positive, m.sometimes(x), y)
        return y

    net = Net(forward, always=nn.Linear(4, 2), sometimes=nn.Linear(4, 2)).double()
    x = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64) * torch.rand(3, 4, dtype=torch.float64)
    cotangents = cotangents_for(net, (x,))
    found = streamed(net, (x,), cotangents)
    assert relative_error(found.per_probe, brute_gram(net, (x,), cotangents)) < 1e-12
    assert (
        found.coverage["sometimes.weight"] == "exact (the network takes other operations for other samples)"
    )


# --- bad input


BAD: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda x: x, "inputs: expected a tuple of tensors"),
    (lambda x: (), "inputs: expected a tuple of tensors"),
    (lambda x: (x, None), "inputs: expected a tuple of tensors"),
    (lambda x: (x, x[:2]), "inputs: expected tensors .N, .... with one N of at least 1; got shapes"),
    (lambda x: (x[:0],), "inputs: expected tensors .N, .... with one N of at least 1"),
    (lambda x: (torch.tensor(1.0),), "inputs: expected tensors"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
@pytest.mark.parametrize("engine", ["streaming", "exact"])
def test_inputs_that_are_no_batch_are_refused(make: Callable[[Tensor], Any], words: str, engine: str) -> None:
    with pytest.raises(InputError, match=words):
        gram_of(nn.Linear(4, 2), make(torch.ones(3, 4)), torch.ones(1, 2), engine=engine)


@pytest.mark.parametrize("engine", ["streaming", "exact"])
@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("rows", [2, 4])
def test_cotangents_of_another_number_of_samples_are_refused(
    engine: str, memory: int | None, rows: int
) -> None:
    with pytest.raises(InputError, match=f"cotangents: .*; got .1, {rows}, 2.. N is 3."):
        gram_of(nn.Linear(4, 2), (torch.ones(3, 4),), torch.ones(1, rows, 2), engine=engine, memory=memory)


@pytest.mark.parametrize("engine", ["streaming", "exact"])
def test_complex_parameters_are_refused(engine: str) -> None:
    net = Net(lambda m, x: (x * m.w).real, w=torch.ones(4, dtype=torch.complex128))
    with pytest.raises(InputError, match="w: expected real floating-point parameters; got complex128"):
        gram_of(net, (torch.ones(3, 4),), torch.ones(1, 4), engine=engine)


def test_a_loop_in_the_users_code_that_differs_between_batches_is_an_error() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        for _ in range(len(x)):
            x = m.layer(x)
        return x

    net = Net(forward, layer=nn.Linear(4, 4))
    with pytest.raises(MeasurementError, match="in the output, they differ"):
        gram_of(net, (normal(3, 4),), torch.ones(1, 4))
