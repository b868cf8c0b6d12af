"""The score a refresher asks for: what it equals, what it leaves untouched, and how it drives a training run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.models import build
from ntkdiag.process import schedules
from ntkdiag.process import target as targets
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.train import TrainConfig, train
from ntkdiag.weights import Refresher
from ntkdiag.weights.refresh import kernel_probe
from ntkdiag.weights.refresh.kernel_probe import PROBED, probe_score

BUCKETS = Buckets.uniform(-6, 6, 3)
POINTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(3))
DRAWS = PairedDraws.draw(POINTS, 12, seed=1)


def small(target: str = "v", seed: int = 0) -> Denoiser:
    network = build("mlp", (2,), seed, width=8, depth=1, frequencies=2)
    return Denoiser(network, schedules.cosine(), target, call="log_snr")


class Straight(nn.Module):
    """f(x) = W x: J_i = x_iᵀ ⊗ I, so the trace kernel is x xᵀ and the residual gradient r_i x_iᵀ."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, 0.1], [-0.2, 0.3]], dtype=torch.float64))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x @ self.weight.T


def straight() -> Denoiser:
    return Denoiser(Straight(), schedules.cosine(), "epsilon")


def inputs(denoiser: Denoiser, level: float) -> tuple[np.ndarray, np.ndarray]:
    """x and the wanted target at a level, float64."""
    x0, epsilon = DRAWS.x0.double(), DRAWS.epsilon.double()
    x = denoiser.schedule.diffuse(x0, epsilon, level)
    return x.numpy(), targets.value(denoiser.target, denoiser.schedule, level, x0, epsilon).numpy()


def test_learnability_is_that_of_the_linear_networks_kernel_in_closed_form() -> None:
    denoiser = straight()
    log_snr, score = probe_score(denoiser, DRAWS, BUCKETS, probes=2)()
    assert log_snr.tolist() == list(BUCKETS.centers)
    spectra = []
    for level in BUCKETS.centers:
        x, _ = inputs(denoiser, level)
        spectra.append(np.linalg.eigh(x @ x.T / len(x)))
    kappa = np.median([values.mean() for values, _ in spectra])
    for level, (values, vectors), found in zip(BUCKETS.centers, spectra, score.tolist(), strict=True):
        _, wanted = inputs(denoiser, level)
        power = np.square(vectors.T @ wanted).sum(1)
        share = (values / (values + kappa) * power).sum() / power.sum()
        assert found == pytest.approx(np.sqrt(share), rel=1e-6)


@pytest.mark.parametrize("score", PROBED)
def test_one_sketch_of_all_buckets_gives_what_a_kernel_of_each_gives(score: str) -> None:
    """Of this network k = 16 sketches nothing; k = 2 all but vectors, for a score that is near."""
    denoiser = small()
    _, exact = probe_score(denoiser, DRAWS, BUCKETS, score, engine="streaming")()
    _, whole = probe_score(denoiser, DRAWS, BUCKETS, score)()
    _, rough = probe_score(denoiser, DRAWS, BUCKETS, score, sketch=2)()
    torch.testing.assert_close(whole, exact, rtol=1e-4, atol=1e-5)
    assert 1e-4 < float((rough / exact - 1).abs().max()) < 0.5


def test_a_refresh_is_one_kernel_of_all_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = kernel_probe.gram

    def counted(denoiser: Denoiser, x0: Tensor, *args: Any, **options: Any) -> Any:
        sizes.append(len(x0))
        return original(denoiser, x0, *args, **options)

    monkeypatch.setattr(kernel_probe, "gram", counted)
    probe_score(small(), DRAWS, BUCKETS)()
    assert sizes == [36, 36]  # for the scale, then for the score
    sizes.clear()
    probe_score(small(), DRAWS, BUCKETS, engine="auto")()
    assert sizes == [12] * 6


def test_gsnr_is_that_of_the_linear_networks_gradients() -> None:
    denoiser = straight()
    _, score = probe_score(denoiser, DRAWS, BUCKETS, "gsnr")()
    weight = denoiser.network.weight.detach().numpy()
    for level, found in zip(BUCKETS.centers, score.tolist(), strict=True):
        x, wanted = inputs(denoiser, level)
        gradients = np.einsum("nd,ne->nde", x @ weight.T - wanted, x).reshape(len(x), -1)
        matrix = gradients @ gradients.T
        signal = (matrix.sum() - np.trace(matrix)) / (len(x) * (len(x) - 1))
        ratio = max(signal / (np.trace(matrix) / len(x) - signal), 0.0)
        assert found == pytest.approx(np.sqrt(ratio / (1 + ratio)), rel=1e-6, abs=1e-9)


def test_gain_is_that_of_the_linear_networks_gradients() -> None:
    denoiser = straight()
    _, score = probe_score(denoiser, DRAWS, BUCKETS, "gain")()
    weight = denoiser.network.weight.detach().numpy()
    rows = []
    for level in BUCKETS.centers:
        x, wanted = inputs(denoiser, level)
        rows.append(np.einsum("nd,ne->nde", x @ weight.T - wanted, x).reshape(len(x), -1))
    mass = np.array(BUCKETS.mass(denoiser.schedule))
    for own, found in zip(rows, score.tolist(), strict=True):
        crossed = [(own @ other.T)[~np.eye(len(own), dtype=bool)].mean() for other in rows]
        truth = (mass / mass.sum() * crossed).sum() / np.square(own).sum(1).mean()
        assert found == pytest.approx(max(truth, 0.0), rel=1e-6, abs=1e-9)


def test_kappa_stays_that_of_the_first_network() -> None:
    """A kernel that grows as a whole must raise learnability, not be divided away."""
    denoiser = small("epsilon")
    measure = probe_score(denoiser, DRAWS, BUCKETS, probes=2)
    before = measure()[1]
    with torch.no_grad():
        denoiser.network.out.weight *= 3
    grown = measure()[1]
    assert (grown > before).all()
    anew = probe_score(denoiser, DRAWS, BUCKETS, probes=2)()[1]
    assert (grown > anew).all()


@pytest.mark.parametrize("score", PROBED)
def test_it_measures_the_live_network_and_repeats_itself(score: str) -> None:
    denoiser = small()
    measure = probe_score(denoiser, DRAWS, BUCKETS, score, probes=1)
    first, again = measure()[1], measure()[1]
    assert torch.equal(first, again)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.3
    assert not torch.allclose(measure()[1], first)


@pytest.mark.parametrize("score", PROBED)
def test_the_network_is_left_as_it_was(score: str) -> None:
    denoiser = small()
    denoiser.train()
    denoiser.network.out.eval()
    modes = [part.training for part in denoiser.modules()]
    for parameter in denoiser.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    state = {name: value.clone() for name, value in denoiser.state_dict().items()}
    random = torch.get_rng_state()
    probe_score(denoiser, DRAWS, BUCKETS, score, probes=1)()
    assert [part.training for part in denoiser.modules()] == modes
    assert all(bool((parameter.grad == 2.0).all()) for parameter in denoiser.parameters())
    assert all(torch.equal(value, state[name]) for name, value in denoiser.state_dict().items())
    assert all(parameter.requires_grad for parameter in denoiser.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_dropout_is_off_while_it_measures() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.Linear(2, 2), nn.Dropout(0.5)

        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return self.drop(self.layer(x))

    denoiser = Denoiser(Dropping(), schedules.cosine(), "v").train()
    measure = probe_score(denoiser, DRAWS, BUCKETS, probes=1)
    assert torch.equal(measure()[1], measure()[1])


def test_scores_are_amplitudes_and_those_of_shares_are_at_most_one() -> None:
    for score in PROBED:
        values = probe_score(small(), DRAWS, BUCKETS, score, probes=1)()[1]
        assert values.dtype == torch.float64 and values.shape == (3,)
        assert (values >= 0).all() and (score == "gain" or (values <= 1).all())


def refreshed(draws_seed: int = 1) -> tuple[Denoiser, Refresher]:
    denoiser = small()
    draws = PairedDraws.draw(POINTS, 12, seed=draws_seed)
    measure = probe_score(denoiser, draws, BUCKETS, probes=1)
    return denoiser, Refresher(measure, "v", denoiser.schedule, every=4)


def test_a_training_run_refreshes_and_an_interrupted_one_ends_the_same(tmp_path: object) -> None:
    data = Data("points", POINTS[:32], POINTS[32:])
    whole = TrainConfig(steps=12, batch=8, checkpoint_every=6)
    denoiser, source = refreshed()
    through = train(denoiser, data, source, whole, out=f"{tmp_path}/a")
    assert [record.step for record in source.history] == [4, 8, 12]
    assert all(record.accepted for record in source.history)
    denoiser, source = refreshed()
    train(denoiser, data, source, TrainConfig(steps=6, batch=8, checkpoint_every=6), out=f"{tmp_path}/b")
    denoiser, source = refreshed()
    resumed = train(denoiser, data, source, whole, out=f"{tmp_path}/b", resume=True)
    assert [record.step for record in source.history] == [4, 8, 12]
    for name, value in through.denoiser.state_dict().items():
        assert torch.equal(value, resumed.denoiser.state_dict()[name]), name


def test_unknown_scores_are_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match="Did you mean 'learnability'"):
        probe_score(small(), DRAWS, BUCKETS, "learnabilty")
    with pytest.raises(InputError, match="one of learnability, gsnr"):
        probe_score(small(), DRAWS, BUCKETS, "bayes")


def test_a_batch_too_small_and_a_dead_network_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 for gsnr"):
        probe_score(small(), PairedDraws.draw(POINTS, 1), BUCKETS, "gsnr")
    denoiser = small()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.zero_()
    denoiser.network.out.bias.requires_grad_(False)
    with pytest.raises(InputError, match="a kernel of zero"):
        probe_score(denoiser, DRAWS, BUCKETS)
