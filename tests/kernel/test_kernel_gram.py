"""`gram` and `gram_of`: each kernel against its definition, by both engines, and everything they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import kernel_truth
import numpy as np
import pytest
import torch
from kernel_networks import Tied, dit_denoiser, linear, mlp_denoiser, normal, perceptron, shaken
from scipy import stats
from torch import Tensor, nn

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel import gram, gram_of
from ntkdiag.modes import measuring
from ntkdiag.process import schedules

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
LEVEL = torch.tensor([-4.0, 0.0, 1.0, 6.0], dtype=torch.float64)
X0, NOISE = normal(4, 3, 2), normal(4, 3, 2, seed=1)


@pytest.fixture(params=["exact", "streaming"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def truth(denoiser: Denoiser, cond: Tensor | None = None) -> Tensor:
    """J of the shared samples, [N, D, P]."""
    x = denoiser.schedule.diffuse(X0, NOISE, LEVEL)
    return kernel_truth.jacobian(denoiser.eval(), (x, LEVEL) if cond is None else (x, LEVEL, cond))


def linear_denoiser(outputs: int = 6) -> Denoiser:
    return Denoiser(
        linear(outputs, outputs),
        schedules.cosine(),
        "v",
        call=lambda net, x, log_snr, cond: net(x.flatten(1)).reshape(x.shape),
    )


# --- each kernel is what it says


def test_trace_is_the_mean_of_the_full_kernels_diagonal(engine: str) -> None:
    denoiser = mlp_denoiser()
    whole = gram(denoiser, X0, LEVEL, kernel="full", epsilon=NOISE, engine=engine)
    trace = gram(denoiser, X0, LEVEL, probes=6, epsilon=NOISE, engine=engine)
    blocks = whole.matrix.reshape(4, 6, 4, 6)
    torch.testing.assert_close(trace.matrix, torch.einsum("iaja->ij", blocks) / 6, **TOLERANCE)
    torch.testing.assert_close(whole.matrix, kernel_truth.full(truth(denoiser)), **TOLERANCE)
    torch.testing.assert_close(trace.matrix, kernel_truth.trace(truth(denoiser)), **TOLERANCE)


def test_a_linear_network_in_closed_form(engine: str) -> None:
    """Θ(x, x') = (x·x' + 1) I: the trace kernel is x·x' + 1, the full one that times an identity."""
    denoiser = linear_denoiser()
    x = denoiser.schedule.diffuse(X0, NOISE, LEVEL).flatten(1)
    inner = x @ x.T + 1
    settings = {"epsilon": NOISE, "engine": engine}
    for probes in (1, 3, 6):  # off-diagonal entries of Θ are zero: one probe has no error
        found = gram(denoiser, X0, LEVEL, probes=probes, **settings)
        torch.testing.assert_close(found.matrix, inner, **TOLERANCE)
    whole = gram(denoiser, X0, LEVEL, kernel="full", **settings)
    torch.testing.assert_close(
        whole.matrix, torch.kron(inner, torch.eye(6, dtype=torch.float64)), **TOLERANCE
    )
    pseudo = gram(denoiser, X0, LEVEL, kernel="pseudo", **settings)
    torch.testing.assert_close(pseudo.matrix, inner, **TOLERANCE)


def test_the_spectrum_of_a_linear_network_in_closed_form(engine: str) -> None:
    """Orthogonal inputs of norm √c: K = c I + 1 1ᵀ has eigenvalues c + N and c, N − 1 times."""
    denoiser = linear_denoiser()
    basis = torch.linalg.qr(normal(6, 4)).Q.T.reshape(4, 3, 2) * math.sqrt(5.0)
    # At λ = ∞ of the cosine path x is x0 itself; 80 is as good in float64.
    found = gram(denoiser, basis, 80.0, epsilon=torch.zeros_like(basis), engine=engine)
    eigenvalues = torch.linalg.eigvalsh(found.matrix)
    expected = torch.tensor([5.0, 5.0, 5.0, 9.0], dtype=torch.float64)
    torch.testing.assert_close(eigenvalues, expected, **TOLERANCE)


@pytest.mark.parametrize("make", [mlp_denoiser, lambda: dit_denoiser()], ids=["mlp", "dit"])
def test_the_residual_kernel_is_made_of_half_loss_gradients(make: object, engine: str) -> None:
    denoiser: Denoiser = make()  # type: ignore[operator]
    shape = (4, 1, 4, 4) if denoiser.target == "flow" else (4, 3, 2)
    x0, noise = normal(*shape, seed=3), normal(*shape, seed=4)
    found = gram(denoiser, x0, LEVEL, kernel="residual", epsilon=noise, engine=engine)
    gradients = kernel_truth.loss_gradients(denoiser.eval(), x0, noise, LEVEL)
    torch.testing.assert_close(found.matrix, gradients @ gradients.T, **TOLERANCE)
    assert found.stderr is None and found.per_probe is None


def test_the_pseudo_kernel_is_that_of_the_mean_output_and_not_the_trace(engine: str) -> None:
    denoiser = mlp_denoiser()
    found = gram(denoiser, X0, LEVEL, kernel="pseudo", epsilon=NOISE, engine=engine)
    mean = truth(denoiser).mean(1)
    torch.testing.assert_close(found.matrix, 6 * mean @ mean.T, **TOLERANCE)
    assert not torch.allclose(found.matrix, kernel_truth.trace(truth(denoiser)), rtol=0.1)
    assert found.stderr is None and found.per_probe is None


@pytest.mark.parametrize("probes", [1, 2, 5, 6])
def test_the_subspace_kernels_eigenvalues_interlace_the_full_ones(probes: int, engine: str) -> None:
    denoiser = mlp_denoiser()
    found = gram(denoiser, X0, LEVEL, kernel="subspace", probes=probes, epsilon=NOISE, engine=engine, seed=2)
    assert found.matrix.shape == (4 * probes, 4 * probes)
    whole = torch.linalg.eigvalsh(kernel_truth.full(truth(denoiser))).flip(0)
    part = torch.linalg.eigvalsh(found.matrix).flip(0)
    lost = len(whole) - len(part)
    slack = 1e-9 * float(whole[0])
    assert bool((part <= whole[: len(part)] + slack).all())
    assert bool((part >= whole[lost:] - slack).all())
    if probes == 6:
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-9)
    else:
        assert float((whole[: len(part)] - part).abs().max()) > 1e-3  # interlacing is not equality


def test_kernels_are_positive_semi_definite_probe_by_probe(engine: str) -> None:
    found = gram(mlp_denoiser(), X0, LEVEL, probes=5, epsilon=NOISE, engine=engine)
    assert found.per_probe is not None and found.per_probe.shape == (5, 4, 4)
    lowest = torch.linalg.eigvalsh(found.per_probe)[:, 0]
    assert bool((lowest > -1e-12 * found.per_probe.diagonal(dim1=1, dim2=2).sum(1)).all())
    torch.testing.assert_close(found.matrix, found.per_probe.mean(0))
    torch.testing.assert_close(found.stderr, found.per_probe.std(0) / math.sqrt(5))
    assert torch.equal(found.matrix, found.matrix.T)


# --- estimates and their errors


def test_the_mean_over_probes_lies_within_its_own_standard_error_of_the_truth() -> None:
    """z = (mean − truth)/stderr over 200 seeds follows Student's t with R − 1 degrees of freedom."""
    denoiser = mlp_denoiser(shape=(5, 8))
    x0, noise, level = normal(3, 5, 8), normal(3, 5, 8, seed=1), LEVEL[:3]
    exact = gram(denoiser, x0, level, probes=40, epsilon=noise).matrix
    probes, upper = 16, np.triu_indices(3)
    errors, scores = [], []
    for seed in range(200):
        found = gram(denoiser, x0, level, probes=probes, seed=seed, epsilon=noise)
        assert found.stderr is not None and bool((found.stderr > 0).all())
        error = found.matrix - exact
        errors.append(error.numpy()[upper])
        scores.append((error / found.stderr).numpy()[upper])
    z = np.abs(scores)  # [200, 6]: seeds are independent, entries are not
    for nominal, low, high in ((0.5, 0.40, 0.60), (0.9, 0.84, 0.95)):
        assert low < (z < stats.t.ppf((1 + nominal) / 2, probes - 1)).mean() < high
    spread = np.std(errors, axis=0) / math.sqrt(200)
    assert (np.abs(np.mean(errors, axis=0)) < 4 * spread).all()


def test_exhaustive_probes_have_no_error_and_one_probe_knows_none() -> None:
    denoiser = mlp_denoiser()
    exhaustive = gram(denoiser, X0, LEVEL, probes=6, epsilon=NOISE)
    assert exhaustive.per_probe is None and bool((exhaustive.stderr == 0).all())  # type: ignore[union-attr]
    single = gram(denoiser, X0, LEVEL, probes=1, epsilon=NOISE)
    assert single.stderr is None and single.per_probe is not None and single.per_probe.shape == (1, 4, 4)


def test_a_seed_gives_the_same_bytes_and_draws_noise_where_none_is_given(engine: str) -> None:
    denoiser = mlp_denoiser()
    first = gram(denoiser, X0, LEVEL, probes=3, seed=5, engine=engine)
    again = gram(denoiser, X0, LEVEL, probes=3, seed=5, engine=engine)
    assert torch.equal(first.matrix, again.matrix)
    assert not torch.allclose(first.matrix, gram(denoiser, X0, LEVEL, probes=3, seed=6, engine=engine).matrix)
    exhaustive = [gram(denoiser, X0, LEVEL, seed=seed, engine=engine).matrix for seed in (0, 1)]
    assert not torch.allclose(exhaustive[0], exhaustive[1])  # another ε
    fixed = [gram(denoiser, X0, LEVEL, seed=seed, epsilon=NOISE, engine=engine).matrix for seed in (0, 1)]
    assert torch.equal(fixed[0], fixed[1])


# --- samples, parameters, groups


def test_one_log_snr_is_as_good_as_the_same_for_each_sample(engine: str) -> None:
    denoiser = mlp_denoiser()
    one = gram(denoiser, X0, 1.5, epsilon=NOISE, engine=engine)
    many = gram(denoiser, X0, torch.full((4,), 1.5), epsilon=NOISE, engine=engine)
    torch.testing.assert_close(one.matrix, many.matrix, **TOLERANCE)
    assert one.log_snr.tolist() == [1.5] * 4 and one.log_snr.dtype == torch.float64


def test_a_cross_bucket_kernel_holds_each_buckets_own(engine: str) -> None:
    denoiser = mlp_denoiser()
    both = gram(denoiser, X0.repeat(2, 1, 1), torch.tensor([-1.0] * 4 + [2.0] * 4),
                epsilon=NOISE.repeat(2, 1, 1), engine=engine).matrix  # fmt: skip
    for part, level in ((slice(0, 4), -1.0), (slice(4, 8), 2.0)):
        own = gram(denoiser, X0, level, epsilon=NOISE, engine=engine).matrix
        torch.testing.assert_close(both[part, part], own, **TOLERANCE)


@pytest.mark.parametrize("kernel", ["trace", "full", "subspace", "pseudo", "residual"])
def test_kernels_over_disjoint_parameters_add_up(kernel: str, engine: str) -> None:
    denoiser = mlp_denoiser()
    settings = {"kernel": kernel, "probes": 3, "epsilon": NOISE, "engine": engine}
    whole = gram(denoiser, X0, LEVEL, **settings)
    parts = [
        gram(denoiser, X0, LEVEL, params=names, **settings)
        for names in ("condition.*", ["layers.*", "shifts.*"], "out.*")
    ]
    torch.testing.assert_close(sum(part.matrix for part in parts), whole.matrix, **TOLERANCE)
    assert sum(part.parameters for part in parts) == whole.parameters
    assert whole.parameters == sum(p.numel() for p in denoiser.parameters())


def by_layer(name: str) -> str:
    return name.rpartition(".")[0]


def by_block(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("grouping", [by_layer, by_block])
def test_groups_are_kernels_of_their_own_and_add_up(grouping: Callable[[str], str], engine: str) -> None:
    denoiser = mlp_denoiser()
    settings = {"probes": 3, "epsilon": NOISE, "engine": engine}
    whole = gram(denoiser, X0, LEVEL, groups=grouping, **settings)
    torch.testing.assert_close(sum(whole.groups.values()), whole.matrix, **TOLERANCE)
    for label, part in whole.groups.items():
        alone = gram(denoiser, X0, LEVEL, params=f"{label}.*", **settings)
        torch.testing.assert_close(part, alone.matrix, **TOLERANCE)
    assert gram(denoiser, X0, LEVEL, **settings).groups == {}


def test_frozen_parameters_are_left_out(engine: str) -> None:
    denoiser = mlp_denoiser()
    expected = gram(denoiser, X0, LEVEL, params="out.*", epsilon=NOISE, engine=engine)
    denoiser.requires_grad_(False)
    denoiser.network.out.requires_grad_(True)
    found = gram(denoiser, X0, LEVEL, epsilon=NOISE, engine=engine)
    torch.testing.assert_close(found.matrix, expected.matrix, **TOLERANCE)
    assert set(found.coverage) == {"out.weight", "out.bias"}


def test_tied_weights(engine: str) -> None:
    module, x, cotangents = shaken(Tied()), normal(4, 4), normal(2, 4, 4, seed=1)
    expected = kernel_truth.contracted(kernel_truth.jacobian(module, (x,)), cotangents)
    torch.testing.assert_close(gram_of(module, (x,), cotangents, engine=engine), expected, **TOLERANCE)


def test_conditioning_reaches_the_network(engine: str) -> None:
    denoiser = mlp_denoiser(classes=3)
    labels = torch.tensor([0, 1, 2, 1])
    found = gram(denoiser, X0, LEVEL, epsilon=NOISE, cond=labels, engine=engine)
    torch.testing.assert_close(found.matrix, kernel_truth.trace(truth(denoiser, labels)), **TOLERANCE)
    without = gram(denoiser, X0, LEVEL, epsilon=NOISE, engine=engine)
    torch.testing.assert_close(without.matrix, kernel_truth.trace(truth(denoiser)), **TOLERANCE)
    assert not torch.allclose(found.matrix, without.matrix, rtol=1e-3)


@pytest.mark.parametrize("kernel", ["trace", "full", "residual"])
@pytest.mark.parametrize("memory", [1, 100_000])
def test_memory_changes_nothing(kernel: str, memory: int, engine: str) -> None:
    denoiser = mlp_denoiser()
    settings = {"kernel": kernel, "probes": 3, "epsilon": NOISE, "engine": engine}
    free = gram(denoiser, X0, LEVEL, **settings)
    bound = gram(denoiser, X0, LEVEL, memory=memory, **settings)
    torch.testing.assert_close(bound.matrix, free.matrix, **TOLERANCE)


def test_a_preconditioner_divides_the_gradients(engine: str) -> None:
    denoiser = mlp_denoiser()
    scale = {name: normal(*p.shape, seed=8).abs() + 0.1 for name, p in denoiser.network.named_parameters()}
    found = gram(denoiser, X0, LEVEL, epsilon=NOISE, engine=engine, preconditioner=scale)
    rows = truth(denoiser) / torch.cat([part.flatten() for part in scale.values()]).sqrt()
    torch.testing.assert_close(found.matrix, kernel_truth.trace(rows), **TOLERANCE)


@pytest.mark.parametrize("kernel", ["trace", "full", "subspace", "pseudo", "residual"])
def test_a_single_sample_is_enough(kernel: str, engine: str) -> None:
    denoiser = mlp_denoiser()
    found = gram(denoiser, X0[:1], 0.0, kernel=kernel, probes=2, epsilon=NOISE[:1], engine=engine)
    assert found.matrix.shape[0] == {"full": 6, "subspace": 2}.get(kernel, 1)
    assert bool((found.matrix.diagonal() > 0).all())


def test_single_precision_agrees_with_double(engine: str) -> None:
    wide, narrow = mlp_denoiser(), mlp_denoiser().float()
    truth_ = gram(wide, X0, LEVEL, probes=3, epsilon=NOISE, engine=engine).matrix
    found = gram(narrow, X0, LEVEL, probes=3, epsilon=NOISE, engine=engine).matrix
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, truth_, rtol=1e-5, atol=1e-5)
    assert float((found - truth_).abs().max()) > 0


def test_what_a_gram_says_about_itself() -> None:
    found = gram(mlp_denoiser(), X0, LEVEL, probes=3, engine="exact")
    assert (found.kernel, found.engine, found.outputs) == ("trace", "exact", 6)
    assert set(found.coverage.values()) == {"exact"}
    assert set(found.coverage) == {name for name, _ in mlp_denoiser().network.named_parameters()}
    assert torch.equal(found.log_snr, LEVEL)
    assert not found.matrix.requires_grad


# --- the module is left as it was


class Moody(nn.Module):
    """Doubles its output in train mode; one part is frozen in eval mode, as people do with normalisation."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.inner = nn.Sequential(linear(2, 2), nn.Dropout(0.5)).double()
        self.frozen = nn.Dropout(0.5)
        self.broken = broken
        self.train()
        self.frozen.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("out of tea")
        return self.frozen(self.inner(x)) * (2 if self.training else 1)


@pytest.fixture
def moods() -> Iterator[tuple[bool, ...]]:
    yield (True, True, True, True, False)


def test_the_network_is_measured_in_eval_mode_and_each_mode_is_restored(engine: str, moods: tuple) -> None:
    module, x, cotangents = Moody(), normal(3, 2), normal(1, 3, 2)
    found = gram_of(module, (x,), cotangents, engine=engine)
    assert tuple(part.training for part in module.modules()) == moods
    expected = torch.einsum("ria,rja->rij", cotangents, cotangents) * (x @ x.T + 1)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_modes_are_restored_after_an_error(engine: str, moods: tuple) -> None:
    module = Moody(broken=True)
    with pytest.raises(RuntimeError, match="out of tea"):
        gram_of(module, (normal(3, 2),), normal(1, 3, 2), engine=engine)
    assert tuple(part.training for part in module.modules()) == moods


def test_measuring_can_be_nested(moods: tuple) -> None:
    module = Moody()
    with measuring(module):
        with measuring(module):
            pass
        assert not any(part.training for part in module.modules())
    assert tuple(part.training for part in module.modules()) == moods


def test_weights_and_gradients_are_untouched(engine: str) -> None:
    denoiser = mlp_denoiser()
    for parameter in denoiser.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    gram(denoiser, X0, LEVEL, kernel="residual", engine=engine)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    assert all(bool((p.grad == 1).all()) for p in denoiser.parameters())  # type: ignore[union-attr]


def test_it_works_where_gradients_are_switched_off(engine: str) -> None:
    denoiser = mlp_denoiser()
    expected = gram(denoiser, X0, LEVEL, epsilon=NOISE, engine=engine).matrix
    with torch.no_grad():
        found = gram(denoiser, X0, LEVEL, epsilon=NOISE, engine=engine).matrix
    torch.testing.assert_close(found, expected, **TOLERANCE)


# --- gram_of


@pytest.mark.parametrize("shared", [True, False])
def test_cotangents_may_be_shared_by_all_samples(shared: bool, engine: str) -> None:
    module, x = perceptron(), normal(5, 3)
    cotangents = normal(3, 4) if shared else normal(3, 5, 4)
    expected = kernel_truth.contracted(kernel_truth.jacobian(module, (x,)), cotangents)
    found = gram_of(module, (x,), cotangents, engine=engine)
    assert found.shape == (3, 5, 5) and found.dtype == torch.float64
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_any_number_of_probes_is_taken(engine: str) -> None:
    module, x, cotangents = perceptron(), normal(2, 3), normal(9, 4)  # more than there are outputs
    expected = kernel_truth.contracted(kernel_truth.jacobian(module, (x,)), cotangents)
    torch.testing.assert_close(gram_of(module, (x,), cotangents, engine=engine), expected, **TOLERANCE)


# --- refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": "tracee"}, r"^kernel: expected one of .*; got 'tracee'\. Did you mean 'trace'\?"),
        ({"engine": "fast"}, "^engine: expected one of auto, streaming, exact, autograd, sketch; got 'fast'"),
        ({"probes": 0}, "^probes: expected an integer of at least 1; got 0"),
        ({"kernel": "subspace", "probes": 7}, "^probes: expected at most the 6 outputs"),
        ({"x0": X0[:0]}, r"^x0: expected at least one sample.*\(0, 3, 2\)"),
        ({"x0": torch.zeros(4)}, r"^x0: expected .*shape \[N, \.\.\.\]; got shape \(4,\)"),
        ({"x0": X0 * math.nan}, "^x0: expected finite values; got NaN or infinity"),
        ({"epsilon": NOISE * math.inf}, "^epsilon: expected finite values"),
        ({"epsilon": NOISE[:2]}, r"^epsilon: expected the shape of x0 \(4, 3, 2\); got \(2, 3, 2\)"),
        ({"log_snr": LEVEL[:3]}, r"^log_snr: expected one number or 4 of them; got shape \(3,\)"),
        ({"log_snr": LEVEL[:, None]}, r"^log_snr: expected one number or 4 of them; got shape \(4, 1\)"),
        ({"log_snr": math.inf}, "^log_snr: expected finite values"),
        ({"params": "head.*"}, r"^params: expected a pattern matching some of \d+ names \(condition\."),
    ],
)
def test_bad_input_is_refused_in_words(change: dict, words: str) -> None:
    given = {"x0": X0, "log_snr": LEVEL, "epsilon": NOISE} | change
    with pytest.raises(InputError, match=words):
        gram(mlp_denoiser(), **given)


def test_a_network_without_parameters_is_refused() -> None:
    denoiser = Denoiser(nn.Identity(), schedules.cosine(), "v", call=lambda net, x, *rest: x)
    with pytest.raises(InputError, match="params: expected a network with trainable parameters; got 0"):
        gram(denoiser, X0, 0.0)


def test_a_network_of_nan_is_a_failed_measurement(engine: str) -> None:
    denoiser = mlp_denoiser()
    with torch.no_grad():
        denoiser.network.out.weight[0, 0] = math.nan
    with pytest.raises(MeasurementError, match="NaN"):
        gram(denoiser, X0, LEVEL, engine=engine)


class Pair(nn.Module):
    """Returns what `reply` makes of the hidden state."""

    def __init__(self, reply: object) -> None:
        super().__init__()
        self.inner = linear(3, 4)
        self.reply = reply

    def forward(self, x: Tensor) -> object:
        return self.reply(self.inner(x))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (lambda y: (y, y), r"module output: expected one tensor \[N, \.\.\.\]; got tuple"),
        (lambda y: y.sum(), r"module output: expected \d rows, one for each sample; got shape \(\)"),
        (lambda y: y[:, :2], r"cotangents: expected \[R, 2\] or \[R, N, 2\]; got \(3, 4\)"),
    ],
)
def test_what_a_module_returns_must_fit(reply: object, words: str, engine: str) -> None:
    with pytest.raises(InputError, match=words):
        gram_of(Pair(reply), (normal(2, 3),), normal(3, 4), engine=engine)
