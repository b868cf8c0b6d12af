"""Families beside diffusers: what their objects say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.foreign.families import VPSDE, GaussianDiffusion, Labelled, Preconditioned
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process import schedules

X = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LEVEL = torch.tensor([-1.0, 3.0], dtype=torch.float64)


class Recorder(nn.Module):
    """Returns its input and remembers how it was called."""

    seen: tuple[Any, ...]
    named: dict[str, Any]

    def forward(self, *given: Any, **named: Any) -> Tensor:
        self.seen, self.named = given, named
        return given[0] + torch.zeros_like(given[0])


def test_f_inside_edm_is_what_is_measured() -> None:
    inner = Recorder()
    prediction = Denoiser.from_edm(Preconditioned(inner))(X, LEVEL)
    x, time = inner.seen
    torch.testing.assert_close(time, -LEVEL / 8)
    torch.testing.assert_close(prediction, x)  # what the inner network returned
    assert not hasattr(inner, "labels")


def test_sigma_data_that_differs_or_lacks_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected 0\.5, the network's own sigma_data; got 1"):
        Denoiser.from_edm(Preconditioned(Recorder()), sigma_data=1.0)
    with pytest.raises(InputError, match=r"Give sigma_data=0.5\."):
        Denoiser.from_edm(Recorder())
    assert Denoiser.from_edm(Recorder(), sigma_data=0.7).schedule.sigma_data == 0.7
    with pytest.raises(InputError, match="with an inner_model"):
        Denoiser.from_k_diffusion(Recorder())


def test_labels_of_edm_become_rows() -> None:
    network = Recorder()
    network.sigma_data, network.label_dim = 0.5, 3  # type: ignore[assignment]
    Denoiser.from_edm(network)(X, LEVEL, {"label": torch.tensor([2, 0])})
    assert network.seen[2].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_epsilon_wrappers_of_k_diffusion_have_the_schedule_of_their_sigmas() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner_model = Recorder()
            level = schedules.linear_beta().log_snr(torch.arange(1000, dtype=torch.float64))
            self.register_buffer("sigmas", torch.exp(-level / 2))

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            scaled = x / (1 + sigma**2).sqrt()[:, None, None, None]
            return x - sigma[:, None, None, None] * self.inner_model(scaled)

    wrapper = Wrapper()
    denoiser = Denoiser.from_k_diffusion(wrapper)
    assert denoiser.target == "epsilon" and denoiser.schedule.variance_preserving
    torch.testing.assert_close(denoiser(X, LEVEL), X)  # the ε inside, at the input of the preserving path
    torch.testing.assert_close(wrapper.inner_model.seen[0], X)


@pytest.mark.parametrize(
    ("objective", "target"), [("pred_noise", "epsilon"), ("pred_x0", "x0"), ("pred_v", "v")]
)
def test_a_gaussian_diffusion_says_its_target(objective: str, target: str) -> None:
    process = GaussianDiffusion(Recorder())
    process.objective = objective
    denoiser = Denoiser.from_gaussian_diffusion(process)
    denoiser(X, LEVEL)
    assert denoiser.target == target and denoiser.network is process.model
    torch.testing.assert_close(process.model.seen[1], schedules.linear_beta().time(LEVEL), rtol=1e-9, atol=0)
    process.objective = "pred_score"
    with pytest.raises(InputError, match="objective of the process"):
        Denoiser.from_gaussian_diffusion(process)
    with pytest.raises(InputError, match="without model"):
        Denoiser.from_gaussian_diffusion(Recorder())


def test_times_of_a_vp_sde_are_those_at_which_it_has_the_log_snr() -> None:
    network, sde = Recorder(), VPSDE()
    denoiser = Denoiser.from_score_sde(network, sde)
    denoiser(X, LEVEL)
    mean, std = sde.marginal_prob(torch.ones(2, 1, 1, 1, dtype=torch.float64), network.seen[1] / 999)
    torch.testing.assert_close(2 * (mean.flatten() / std).log(), LEVEL)
    assert denoiser.target == "epsilon"


def test_other_sdes() -> None:
    class SubVP(VPSDE):
        def marginal_prob(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            mean, std = super().marginal_prob(x, t)
            return mean, std**2

    class VE:
        T = 1

        def marginal_prob(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return x, 0.01 * 5000**t

    network = Recorder()
    Denoiser.from_score_sde(network, SubVP())(X, LEVEL)
    x, time = network.seen
    mean, std = SubVP().marginal_prob(torch.ones(2, 1, 1, 1, dtype=torch.float64), time / 999)
    torch.testing.assert_close(2 * (mean.flatten() / std).log(), LEVEL, rtol=1e-3, atol=1e-3)
    total = torch.hypot(mean, std[:, None, None, None])  # its own path, from the preserving one
    torch.testing.assert_close(x, total * X, rtol=1e-3, atol=1e-3)
    exploding = Denoiser.from_score_sde(network, VE())
    exploding(X, LEVEL)
    assert exploding.target == "score"
    torch.testing.assert_close(network.seen[1], torch.exp(-LEVEL / 2))
    with pytest.raises(InputError, match="an SDE with marginal_prob"):
        Denoiser.from_score_sde(network, object())


def test_labels_of_dit_sit_and_uvit() -> None:
    for read in (Denoiser.from_dit, Denoiser.from_sit):
        inner = Recorder()
        network = Labelled(inner)
        seen: list[Tensor] = []

        def keep(module: nn.Module, given: Any, named: Any, seen: list[Tensor] = seen) -> None:
            seen.append(named["y"])

        network.register_forward_pre_hook(keep, with_kwargs=True)
        read(network)(X, LEVEL)
        read(network)(X, LEVEL, {"label": torch.tensor([1, 2])})
        read(network, null_label=7)(X, LEVEL)
        assert [labels.tolist() for labels in seen] == [[10, 10], [1, 2], [7, 7]]
        with pytest.raises(InputError, match="Give null_label=1000"):
            read(Recorder())(X, LEVEL)
    network = Recorder()
    Denoiser.from_uvit(network)(X, LEVEL)
    assert "y" not in network.named
    network.label_emb = nn.Embedding(11, 2)
    Denoiser.from_uvit(network)(X, LEVEL)
    assert network.named["y"].tolist() == [10, 10]


def test_sit_counts_from_noise_and_predicts_the_opposite() -> None:
    inner = Recorder()
    prediction = Denoiser.from_sit(Labelled(inner))(X, LEVEL)
    torch.testing.assert_close(inner.seen[1], 1 - schedules.flow().time(LEVEL))
    torch.testing.assert_close(prediction, -X)


@pytest.mark.parametrize(
    "read",
    [Denoiser.from_edm, Denoiser.from_dit, Denoiser.from_sit, Denoiser.from_uvit, Denoiser.from_k_diffusion],
)
def test_what_is_no_module_is_refused(read: Any) -> None:
    with pytest.raises(InputError, match=r"a torch\.nn\.Module"):
        read("net.pt")
