"""Weights in k-diffusion.

Where the package can be imported its own denoiser is tested. It brings dozens of others along, so mostly it is not
there, and `Double` stands in: a test double that honours the convention, `weighting` a function of sigma [N] that
multiplies each sample's squared error of F.
"""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from integrations_cases import Recorder, refresher
from torch import Tensor, nn

from ntkdiag.errors import InputError
from ntkdiag.integrations.k_diffusion import SigmaWeighting, attach
from ntkdiag.process import schedules
from ntkdiag.weights import rule

SIGMA = torch.tensor([0.02, 0.3, 1.0, 5.0, 70.0])


class Double(nn.Module):
    """k-diffusion's `layers.Denoiser` as far as a loss needs it."""

    def __init__(self, inner_model: nn.Module, sigma_data: float = 1.0) -> None:
        super().__init__()
        self.inner_model, self.sigma_data, self.weighting = inner_model, sigma_data, torch.ones_like

    def loss(self, input: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(-1, *(1,) * (input.ndim - 1))
        spread = level**2 + self.sigma_data**2
        noisy = input + noise * level
        wanted = (input - self.sigma_data**2 / spread * noisy) / (level * self.sigma_data / spread.sqrt())
        output = self.inner_model(noisy / spread.sqrt(), sigma)
        return (output - wanted).square().flatten(1).mean(1) * self.weighting(sigma)


def denoisers() -> list[Any]:
    """The double, and the real one if it is there."""
    found: list[Any] = [pytest.param(Double, id="double")]
    try:
        from k_diffusion.layers import Denoiser
    except ImportError:
        return found
    return [*found, pytest.param(Denoiser, id="k_diffusion")]


class Inner(nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(x) * sigma.log().reshape(-1, 1)


@pytest.mark.parametrize("kind", denoisers())
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_the_loss_of_each_sample_is_weighed_by_its_sigma(kind: Any, sigma_data: float) -> None:
    draw = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(5, 3, generator=draw), torch.randn(5, 3, generator=draw)
    denoiser = kind(Inner(), sigma_data=sigma_data)
    plain = denoiser.loss(x0, noise, SIGMA)
    attach(denoiser, rule("erd", "F", schedules.edm(sigma_data), normalise=False))
    weight = SIGMA * sigma_data / (SIGMA**2 + sigma_data**2)
    torch.testing.assert_close(denoiser.loss(x0, noise, SIGMA), weight * plain, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("kind", denoisers())
def test_soft_min_snr_is_their_own_up_to_gammas_scale(kind: Any) -> None:
    # Theirs is (σσ_d)²/(σ² + σ_d²)²: soft-min-SNR with γ = 1/σ_d², divided by it (k-diffusion#98).
    sigma_data = 0.5
    denoiser = kind(Inner(), sigma_data=sigma_data)
    made = rule("soft_min_snr", "F", schedules.edm(sigma_data), gamma=sigma_data**-2, normalise=False)
    ours = attach(denoiser, made)(SIGMA)
    theirs = (SIGMA * sigma_data) ** 2 / (SIGMA**2 + sigma_data**2) ** 2
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0.0)
    if kind is not Double:
        own = kind(Inner(), sigma_data=sigma_data, weighting="soft-min-snr")
        torch.testing.assert_close(own.weighting(SIGMA), theirs, rtol=1e-5, atol=0.0)


def test_their_constructor_refuses_a_function() -> None:
    layers = pytest.importorskip("k_diffusion.layers")
    with pytest.raises(ValueError, match="Unknown weighting type"):
        layers.Denoiser(Inner(), weighting=SigmaWeighting(rule("edm", "x0")))


def test_a_weight_on_x0_is_the_same_objective_on_f() -> None:
    for sigma_data in (0.5, 1.0):
        made = rule("edm", "x0", sigma_data=sigma_data)
        torch.testing.assert_close(
            SigmaWeighting(made, sigma_data)(SIGMA), torch.ones(5), rtol=1e-5, atol=0.0
        )


def test_shape_and_dtype_follow_sigma() -> None:
    weighting = SigmaWeighting(rule("edm", "x0"), 0.5)
    assert weighting(SIGMA.double()).dtype == torch.float64
    assert weighting(SIGMA.reshape(5, 1, 1)).shape == (5, 1, 1)


def test_a_refresher_is_kept_up_to_date_and_frozen_in_a_pickle() -> None:
    recorder = Recorder("F")
    weighting = attach(Double(Inner()), recorder)
    weighting.after_step(4)
    assert recorder.steps == [4]
    live = SigmaWeighting(refresher("F", every=1))
    live.after_step(1)
    assert torch.equal(pickle.loads(pickle.dumps(live))(SIGMA), live(SIGMA))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        InputError, match="weights for F or x0, which k-diffusion predicts; got weights for epsilon"
    ):
        attach(Double(Inner()), rule("min_snr", "epsilon"))
    with pytest.raises(InputError, match=r"expected a k_diffusion\.layers\.Denoiser; got Linear"):
        attach(nn.Linear(2, 2), rule("edm", "x0"))
