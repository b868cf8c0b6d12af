"""The engine "sketch" as users call it: unbiased, a sketch for each probe, each sample once; and when "auto" chooses it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
import torch
from kernel_networks import Tied, dit_denoiser, mlp_denoiser, normal, perceptron, shaken
from networks.case import Net
from references import brute_gram, relative_error
from scipy import stats
from sketch_truth import measured, sketched_gram
from streaming_truth import cotangents_for
from torch import Tensor, nn

import ntkdiag as nd
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel import gram, gram_of
from ntkdiag.kernel.check import CheckOnce
from ntkdiag.kernel.sketch import Sketch
from ntkdiag.kernel.streaming import engine as engine_room
from ntkdiag.kernel.streaming import row_storage, sketched_sweeps
from ntkdiag.spectra import participation_ratio_pairs

Inputs = tuple[Tensor, ...]


def convolution() -> tuple[nn.Module, Inputs]:
    parts = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, 6, 3, stride=2, groups=2),
        nn.Flatten(),
        nn.Linear(6, 2),
    ]
    return shaken(nn.Sequential(*parts)), (normal(4, 3, 4, 4),)


def tied() -> tuple[nn.Module, Inputs]:
    return shaken(Tied()), (normal(4, 5, 4),)


def table() -> tuple[nn.Module, Inputs]:
    net = Net(lambda m, i: m.out(m.rows(i).tanh()), rows=nn.Embedding(12, 6), out=nn.Linear(6, 5))
    return shaken(net), (torch.tensor([[1, 2, 1], [2, 2, 5], [1, 7, 11], [0, 1, 2]]),)


def mlp() -> tuple[nn.Module, Inputs]:
    return perceptron(5, 4, 7), (normal(4, 5),)


def dit() -> tuple[nn.Module, Inputs]:
    return dit_denoiser().network, (
        normal(4, 1, 4, 4),
        torch.tensor([-4.0, 0.0, 1.0, 6.0], dtype=torch.float64),
    )


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "mlp": mlp, "dit": dit, "convolution": convolution, "tied": tied, "table": table,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_mean_over_sketches_is_the_exact_kernel_within_its_own_standard_error(name: str) -> None:
    module, inputs = NETWORKS[name]()
    count = 200
    one = cotangents_for(module, inputs, probes=1)
    truth = gram_of(module, inputs, one)[0]
    many = gram_of(module, inputs, one.expand(count, *one.shape[1:]), engine="sketch", sketch=2)
    error = (many.mean(0) - truth) / (many.std(0) / count**0.5)
    assert float(error.abs().max()) < 4
    spread = many.std(0) / truth.diagonal().sqrt() / truth.diagonal().sqrt()[:, None]
    assert float(spread.min()) > 0.05, "every direction has the same sketch, or none"
    assert not any(torch.equal(many[0], other) for other in many[1:4])


def test_a_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    module, inputs = mlp()
    cotangents = cotangents_for(module, inputs)

    def found(seed: int) -> Tensor:
        return gram_of(module, inputs, cotangents, engine="sketch", sketch=2, seed=seed)

    assert torch.equal(found(3), found(3))
    assert not torch.equal(found(3), found(4))
    assert not torch.equal(gram_of(module, inputs, cotangents, engine="sketch", sketch=3, seed=3), found(3))


def samples_run(samples: int, memory: int | None, probes: int = 2) -> int:
    """How many samples pass through the network."""
    module, x = perceptron(5, 4, 7), normal(samples, 5)
    cotangents = torch.ones(probes, 4, dtype=torch.float64)
    seen: list[int] = []
    module.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    gram_of(module, (x,), cotangents, engine="sketch", sketch=2, memory=memory)
    return sum(seen)


def test_each_sample_runs_once_whatever_their_number() -> None:
    tile = 6000  # bytes for a few samples and all rows
    assert samples_run(40, tile) - samples_run(20, tile) == 20
    assert samples_run(40, None) - samples_run(20, None) == 20
    assert samples_run(40, None) <= 40 + 4  # a rehearsal, and the pair of the check


def test_rows_of_few_probes_at_a_time_and_rows_in_a_file_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, inputs = mlp()
    cotangents = cotangents_for(module, inputs, probes=5)
    truth = sketched_gram(module, inputs, cotangents, Sketch(2, 0))
    stored: list[tuple[bool, int]] = []
    original = sketched_sweeps._storage

    def storage(*args: object) -> object:
        found = original(*args)  # type: ignore[arg-type]
        stored.append((found[0].in_file, found[1]))
        return found

    monkeypatch.setattr(sketched_sweeps, "_storage", storage)
    monkeypatch.setattr(engine_room, "samples_that_fit", lambda *ignored: 2)
    row_bytes = 8 * 4 * (4 + 7 + 4 + 4)  # four samples; both matrices become 2 × 2
    for memory in (1, 4 * row_bytes, 8 * row_bytes, None):
        found = measured(module, inputs, cotangents, 2, memory=memory)
        assert relative_error(found.per_probe, truth) < 1e-12
    assert [each[0] for each in stored] == [True, False, False, False]
    assert [each[1] for each in stored[:3]] == [1, 2, 4]


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(row_storage.os, "posix_fallocate", full)
    module, inputs = mlp()
    with pytest.raises(MeasurementError, match=r"rows of the sketch: .*No space left on device.*TMPDIR"):
        measured(module, inputs, cotangents_for(module, inputs), 2, memory=1)


def test_groups_add_up_and_hold_their_own_parameters() -> None:
    module, inputs = mlp()
    cotangents = cotangents_for(module, inputs)
    found = measured(module, inputs, cotangents, 2, group=lambda name: name.partition(".")[0])
    torch.testing.assert_close(sum(found.groups.values()), found.per_probe)
    first = measured(module, inputs, cotangents, 2, params="0.*").per_probe
    torch.testing.assert_close(found.groups["0"], first)


def test_preconditioned_is_unbiased_for_the_exact_preconditioned_kernel() -> None:
    module, inputs = mlp()
    scale = {}
    for number, (name, p) in enumerate(module.named_parameters()):
        columns = normal(p.shape[1], seed=number + 9).exp() if p.ndim == 2 else 1.0
        scale[name] = normal(p.shape[0], *(1,) * (p.ndim - 1), seed=number).exp() * columns
        scale[name] = scale[name].expand(p.shape).contiguous()
    one, count = cotangents_for(module, inputs, probes=1), 200
    truth = brute_gram(module, inputs, one, preconditioner=scale)[0]
    options = {"engine": "sketch", "sketch": 2, "preconditioner": scale}
    many = gram_of(module, inputs, one.expand(count, *one.shape[1:]), **options)
    assert float(((many.mean(0) - truth) / (many.std(0) / count**0.5)).abs().max()) < 4
    scale["0.weight"] = normal(7, 5).exp()
    with pytest.raises(InputError, match=r"preconditioner of 0\.weight: .*choose engine='streaming'"):
        gram_of(module, inputs, one, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_lower_precision(dtype: torch.dtype) -> None:
    for make in NETWORKS.values():
        module, inputs = make()
        cotangents = cotangents_for(module, inputs)
        truth = sketched_gram(module, inputs, cotangents, Sketch(2, 0))
        low = tuple(t.to(dtype) if t.is_floating_point() else t for t in inputs)
        found = measured(module.to(dtype), low, cotangents.to(dtype), 2)
        assert relative_error(found.per_probe, truth) < (0.1 if dtype == torch.bfloat16 else 1e-4)
        assert found.engine == "sketch"


# --- gram: the trace kernel with its error, and the other kernels

LEVEL = torch.tensor([-4.0, 0.0, 1.0, 6.0], dtype=torch.float64)
X0, NOISE = normal(4, 3, 2), normal(4, 3, 2, seed=1)


def test_the_standard_error_holds_the_error_of_the_sketch() -> None:
    """With D probes the exact kernel has no error; with a sketch all probes are random, and have a spread."""
    denoiser, seeds, probes = mlp_denoiser(), 30, 24
    exact = gram(denoiser, X0, LEVEL, probes=probes, epsilon=NOISE)
    assert exact.per_probe is None
    inside = []
    for seed in range(seeds):
        found = gram(
            denoiser,
            X0,
            LEVEL,
            probes=probes,
            engine="sketch",
            sketch=3,
            seed=seed,
            epsilon=NOISE,
            check=False,
        )
        assert found.engine == "sketch" and found.per_probe is not None and found.stderr is not None
        inside.append(((found.matrix - exact.matrix) / found.stderr).abs() < stats.t.ppf(0.95, probes - 1))
    covered = torch.stack(inside).double().mean((1, 2))  # of each seed, whose entries are correlated
    assert abs(float(covered.mean()) - 0.9) < 3 * float(covered.std()) / seeds**0.5


def test_pair_statistics_take_products_between_probes_and_are_free_of_sketch_noise() -> None:
    denoiser = mlp_denoiser()
    x0, noise, level = normal(12, 3, 2), normal(12, 3, 2, seed=1), torch.linspace(-4, 4, 12)
    exact = participation_ratio_pairs(gram(denoiser, x0, level, probes=6, epsilon=noise).matrix)
    found = gram(denoiser, x0, level, probes=300, epsilon=noise, engine="sketch", sketch=1)
    noisy = gram(denoiser, x0, level, probes=4, epsilon=noise, engine="sketch", sketch=1).matrix
    assert participation_ratio_pairs(found.matrix, per_probe=found.per_probe) == pytest.approx(
        exact, rel=0.05
    )
    assert abs(participation_ratio_pairs(noisy) / exact - 1) > 0.1


@pytest.mark.parametrize("kernel", ["full", "subspace", "pseudo", "residual"])
def test_other_kernels_are_unbiased_too_and_have_no_error(kernel: str) -> None:
    denoiser = mlp_denoiser()
    settings = {"kernel": kernel, "probes": 2, "epsilon": NOISE}
    exact = gram(denoiser, X0, LEVEL, **settings).matrix
    drawn = [{"engine": "sketch", "sketch": 3, "seed": seed} for seed in range(60)]
    if kernel == "subspace":  # the seed also draws the subspace
        found = gram(denoiser, X0, LEVEL, engine="sketch", sketch=100, **settings)
        torch.testing.assert_close(found.matrix, exact)
        return
    many = [gram(denoiser, X0, LEVEL, check=False, **settings, **each) for each in drawn]
    assert all(each.stderr is None and each.per_probe is None for each in many)
    stacked = torch.stack([each.matrix for each in many])
    error = (stacked.mean(0) - exact) / (stacked.std(0) / len(many) ** 0.5)
    assert float(error.abs().mean()) < 1.2 and float(error.abs().max()) < 5


# --- auto


def test_auto_sketches_more_samples_than_one_sweep_holds_and_says_so() -> None:
    denoiser = dit_denoiser()
    x0, noise = normal(6, 1, 4, 4), normal(6, 1, 4, 4, seed=1)
    settings = {"probes": 3, "epsilon": noise, "memory": 1, "sketch": 2}
    found = gram(denoiser, x0, 0.0, **settings)
    assert found.engine == "sketch" and found.stderr is not None
    why = "; sketch of 2 (6 samples, and memory for 1 in one sweep)"
    assert sum(how.endswith(why) for how in found.coverage.values()) > 5
    torch.testing.assert_close(found.matrix, gram(denoiser, x0, 0.0, engine="sketch", **settings).matrix)
    assert gram(denoiser, x0, 0.0, probes=3, epsilon=noise).engine == "streaming"  # all of them fit


@pytest.mark.parametrize(
    "settings",
    [{"probes": 1}, {"probes": 16}, {"kernel": "residual"}, {"kernel": "pseudo"}, {"engine": "streaming", "probes": 3}],
)  # fmt: skip
def test_auto_stays_exact_where_a_sketch_would_have_no_error_to_show(settings: dict[str, object]) -> None:
    x0, noise = normal(4, 1, 4, 4), normal(4, 1, 4, 4, seed=1)
    found = gram(dit_denoiser(), x0, 0.0, epsilon=noise, memory=1, **settings)  # type: ignore[arg-type]
    assert found.engine == "streaming"
    assert not any("sketch" in how for how in found.coverage.values())


def test_auto_stays_exact_for_any_module_and_with_a_preconditioner() -> None:
    module, inputs = mlp()
    cotangents = cotangents_for(module, inputs)
    assert (
        relative_error(gram_of(module, inputs, cotangents, memory=1), brute_gram(module, inputs, cotangents))
        < 1e-12
    )
    denoiser = mlp_denoiser()
    scale = {name: torch.ones_like(p) for name, p in denoiser.network.named_parameters()}
    assert gram(denoiser, X0, LEVEL, probes=3, memory=1, preconditioner=scale).engine == "streaming"


def test_a_shared_check_looks_at_a_sketch_once_and_at_the_exact_kernel_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denoiser, check, looked = dit_denoiser(), CheckOnce(), []
    original = engine_room.Check.compare
    monkeypatch.setattr(
        engine_room.Check,
        "compare",
        lambda self, *args: (looked.append(self.active), original(self, *args))[1],
    )
    x0, noise = normal(6, 1, 4, 4), normal(6, 1, 4, 4, seed=1)
    for memory in (1, 1, None, None):
        gram(denoiser, x0, 0.0, probes=3, epsilon=noise, memory=memory, check=check)
    assert looked == [True, False, True, False]


def test_public_names_take_a_sketch() -> None:
    assert (
        nd.gram(mlp_denoiser(), X0, LEVEL, probes=2, engine="sketch", sketch=2, epsilon=NOISE).engine
        == "sketch"
    )
