"""Weights as a loss class of EDM and EDM2.

NVlabs/edm and edm2 are not packages that can be installed, and their licence keeps their code out of here: `Loop`
below is a test double that honours their convention, which is how they build a loss, call it, reduce it and save it.
"""

from __future__ import annotations

import copy
import importlib
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from integrations_cases import refresher
from torch import Tensor, nn

from ntkdiag.errors import InputError
from ntkdiag.integrations.edm import WeightedEDM2Loss, WeightedEDMLoss
from ntkdiag.process import schedules
from ntkdiag.weights import WeightTable, rule

IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.eye(6)


class Precond(nn.Module):
    """EDM's preconditioning around one convolution; keeps what it was handed."""

    def __init__(self, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.u = nn.Parameter(torch.zeros(()))
        self.sigma_data = sigma_data

    def raw(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.conv(x / (sigma**2 + self.sigma_data**2).sqrt())

    def forward(
        self, x: Tensor, sigma: Tensor, labels: Any = None, return_logvar: bool = False, **more: Any
    ) -> Any:
        self.seen = (x, sigma, labels, more)
        spread = sigma**2 + self.sigma_data**2
        c_skip, c_out = self.sigma_data**2 / spread, sigma * self.sigma_data / spread.sqrt()
        denoised = c_skip * x + c_out * self.raw(x, sigma)
        return (denoised, self.u * torch.ones_like(sigma)) if return_logvar else denoised


class Loop:
    """How those loops treat a loss."""

    def __init__(self, net: nn.Module, **loss_kwargs: Any) -> None:
        module, _, name = loss_kwargs.pop("class_name").rpartition(".")
        self.net, self.loss_fn = net, getattr(importlib.import_module(module), name)(**loss_kwargs)

    def step(self, seed: int, **more: Any) -> Tensor:
        torch.manual_seed(seed)
        loss = self.loss_fn(net=self.net, images=IMAGES, labels=LABELS, **more)
        loss.sum().mul(1 / len(IMAGES)).backward()
        return loss

    def checkpoint(self) -> Any:
        for name in ("state_dict", "__getstate__", "__dict__"):
            if hasattr(self.loss_fn, name):
                found = getattr(self.loss_fn, name)
                return found() if callable(found) else found
        raise AssertionError


def draws(seed: int, p_mean: float, p_std: float) -> tuple[Tensor, Tensor]:
    """Noise levels first, noise second, from torch's own generator."""
    torch.manual_seed(seed)
    sigma = (torch.randn(6, 1, 1, 1) * p_std + p_mean).exp()
    return sigma, torch.randn_like(IMAGES) * sigma


def test_edms_own_weight_gives_edms_own_loss_on_the_same_draws() -> None:
    net = Precond()
    for weights in (
        rule("edm", "x0", sigma_data=0.5),
        rule("edm", "F", schedules.edm(), sigma_data=0.5, normalise=False),
    ):
        loop = Loop(net, class_name="ntkdiag.integrations.edm.WeightedEDMLoss", weights=weights)
        loss = loop.step(3)
        sigma, noise = draws(3, -1.2, 1.2)
        expected = (sigma**2 + 0.25) / (sigma * 0.5) ** 2 * (net(IMAGES + noise, sigma, LABELS) - IMAGES) ** 2
        assert loss.shape == IMAGES.shape
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_a_weight_on_f_weighs_the_error_of_the_raw_network(sigma_data: float) -> None:
    net = Precond(sigma_data)
    path = schedules.edm(sigma_data)
    made = rule("erd", "F", path, normalise=False)
    loss = WeightedEDMLoss(made, sigma_data=sigma_data)
    torch.manual_seed(1)
    found = loss(net, IMAGES)
    sigma, noise = draws(1, -1.2, 1.2)
    spread = sigma**2 + sigma_data**2
    wanted = (IMAGES - sigma_data**2 / spread * (IMAGES + noise)) / (sigma * sigma_data / spread.sqrt())
    weight = sigma * sigma_data / spread  # ½ sech(λ_n/2) with σ/σ_d = e^{−λ_n/2}
    torch.testing.assert_close(
        found, weight * (net.raw(IMAGES + noise, sigma) - wanted) ** 2, rtol=1e-4, atol=1e-6
    )


def test_edm2s_own_weight_and_uncertainty_give_edm2s_own_loss() -> None:
    net = Precond()
    net.u.data.fill_(0.7)
    loop = Loop(net, class_name="ntkdiag.integrations.edm.WeightedEDM2Loss", weights=rule("edm", "x0", sigma_data=0.5),
                P_mean=-0.4, P_std=1.0, sigma_data=0.5, uncertainty=True)  # fmt: skip
    loss = loop.step(5)
    sigma, noise = draws(5, -0.4, 1.0)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    expected = weight / math.exp(0.7) * (net(IMAGES + noise, sigma, LABELS) - IMAGES) ** 2 + 0.7
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def test_without_uncertainty_the_loss_is_the_weighted_error_and_u_keeps_a_gradient_of_zero() -> None:
    net = Precond()
    net.u.data.fill_(2.0)
    loop = Loop(
        net, class_name="ntkdiag.integrations.edm.WeightedEDM2Loss", weights=rule("edm", "x0", sigma_data=0.5)
    )
    loss = loop.step(5)
    sigma, noise = draws(5, -0.4, 1.0)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    torch.testing.assert_close(
        loss, weight * (net(IMAGES + noise, sigma, LABELS) - IMAGES) ** 2, rtol=1e-5, atol=1e-6
    )
    assert net.u.grad is not None and net.u.grad.item() == 0.0


def test_a_learned_uncertainty_takes_the_weight_out_again() -> None:
    # At the optimum e^u = w·E, the gradient of w/e^u·E with respect to the network does not know w.
    error = torch.tensor(0.3, requires_grad=True)
    grads = []
    for weight in (1.0, 7.0):
        u = torch.tensor(math.log(weight * 0.3**2))
        (grad,) = torch.autograd.grad(weight / u.exp() * error**2 + u, error)
        grads.append(grad.item())
    assert grads[0] == pytest.approx(grads[1])


def test_labels_and_augmentations_reach_the_network() -> None:
    net = Precond()
    loop = Loop(net, class_name="ntkdiag.integrations.edm.WeightedEDMLoss", weights=rule("edm", "x0"))
    loop.step(0, augment_pipe=lambda images: (images.flip(-1), "labels of the flip"))
    x, sigma, labels, more = net.seen
    assert labels is LABELS and more == {"augment_labels": "labels of the flip"}
    torch.testing.assert_close(x - draws(0, -1.2, 1.2)[1], IMAGES.flip(-1), rtol=0, atol=1e-5)
    assert sigma.shape == (6, 1, 1, 1)


def test_equal_seeds_and_equal_generators_give_equal_losses() -> None:
    net = Precond()
    made = rule("edm", "x0")
    losses = [
        WeightedEDMLoss(made, generator=torch.Generator().manual_seed(4))(net, IMAGES).detach()
        for _ in range(2)
    ]
    assert torch.equal(*losses)
    state = torch.random.get_rng_state()
    WeightedEDMLoss(made, generator=torch.Generator().manual_seed(4))(net, IMAGES)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_loss_can_be_built_from_a_path_and_plain_numbers(tmp_path: Path) -> None:
    rule("edm", "x0", sigma_data=0.5).save(tmp_path / "weights.csv")
    loop = Loop(Precond(), class_name="ntkdiag.integrations.edm.WeightedEDM2Loss",
                weights=str(tmp_path / "weights.csv"), P_mean=-0.4, P_std=1.0)  # fmt: skip
    assert isinstance(loop.loss_fn.source, WeightTable)
    assert torch.isfinite(loop.step(0)).all()


@pytest.mark.parametrize("kind", [WeightedEDMLoss, WeightedEDM2Loss])
def test_its_state_goes_into_the_checkpoint_and_its_weights_into_the_snapshot(kind: type) -> None:
    first = kind(refresher("F"))
    for step in range(1, 6):
        first.after_step(step)
    second = kind(refresher("F"))
    second.load_state_dict(first.state_dict())
    sigma = torch.tensor([0.1, 1.0, 10.0])
    assert torch.equal(second.weight(sigma), first.weight(sigma))
    snapshot = pickle.loads(pickle.dumps(first))
    assert torch.equal(snapshot.weight(sigma), first.weight(sigma)) and isinstance(
        snapshot.source, WeightTable
    )
    assert torch.equal(copy.deepcopy(first).weight(sigma), first.weight(sigma))
    assert (
        Loop(Precond(), class_name=f"{kind.__module__}.{kind.__name__}", weights=refresher("F")).checkpoint()[
            "history"
        ]
        == []
    )


def test_weights_for_targets_that_edm_does_not_have_are_refused() -> None:
    for kind in (WeightedEDMLoss, WeightedEDM2Loss):
        with pytest.raises(
            InputError, match="weights for F or x0, which EDM networks predict; got weights for v"
        ):
            kind(rule("min_snr", "v"))
    with pytest.raises(InputError, match="edm sigma_data"):
        WeightedEDMLoss(rule("edm", "x0"), sigma_data=0.0)
