"""Densities under the probability-flow ODE against those that are known exactly."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_cases import small_denoiser

import ntkdiag as nd
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.process import schedules
from ntkdiag.process.bayes import MixtureOracle
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import convert
from ntkdiag.train import flow_log_density, flow_map, kl_divergence

MEANS, SHARES, STD = torch.tensor([[0.8, -0.3], [-0.6, 0.9]]).double(), torch.tensor([0.7, 0.3]).double(), 0.4
MODES = MixtureOracle(MEANS, std=STD, weights=SHARES)
# So noisy that noise is normal to 2e-3 of a nat, and so clean that the modes are seen.
NOISY, CLEAN = -12.0, 2.0


class Optimal(nn.Module):
    """The optimal denoiser of a mixture with one standard deviation, by operations that autograd sees."""

    def __init__(
        self,
        schedule: Schedule,
        target: str,
        means: Tensor = MEANS,
        shares: Tensor = SHARES,
        std: float = STD,
    ) -> None:
        super().__init__()
        self.schedule, self.target = schedule, target
        self.means, self.shares, self.std = means, shares, std

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        alpha, sigma = (of(log_snr)[:, None] for of in (self.schedule.alpha, self.schedule.sigma))
        variance = alpha**2 * self.std**2 + sigma**2
        away = x[:, None] - alpha[..., None] * self.means
        logits = self.shares.log() - away.square().sum(dim=2) / (2 * variance)
        x0 = self.means + (alpha * self.std**2 / variance)[..., None] * away
        mean = (torch.softmax(logits, dim=1)[..., None] * x0).sum(dim=1)
        return convert(mean, x, log_snr, self.schedule, "x0", self.target)


def optimal(schedule: Schedule, target: str = "v", **mixture: Any) -> nd.Denoiser:
    network = Optimal(schedule, target, **mixture)
    return nd.Denoiser(network, schedule, target, call=lambda net, x, log_snr, cond: net(x, log_snr))


def known(count: int = 200) -> nd.data.Data:
    draw = torch.Generator().manual_seed(0)
    which = torch.multinomial(SHARES, 2 * count, True, generator=draw)
    points = MEANS[which] + STD * torch.randn(2 * count, 2, generator=draw, dtype=torch.float64)
    return nd.data.Data("known", points[:count], held_out=points[count:], oracle=MODES)


def normal(count: int, seed: int) -> nd.data.Data:
    """Of standard deviation 0.4; a network that takes it for 0.8 has this KL divergence at the clean end."""
    points = STD * torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    oracle = MixtureOracle(torch.zeros(1, 2), std=STD)
    return nd.data.Data("normal", points[:2], held_out=points, oracle=oracle)


def kl_of_normals(schedule: Schedule) -> float:
    alpha, sigma = float(schedule.alpha(CLEAN)), float(schedule.sigma(CLEAN))
    ratio = (alpha**2 * STD**2 + sigma**2) / (alpha**2 * 0.64 + sigma**2)
    return ratio - 1 - math.log(ratio)


ONE: dict[str, Any] = {"means": torch.zeros(1, 2).double(), "shares": torch.ones(1).double()}


def noisy_points(schedule: Schedule, count: int = 20) -> Tensor:
    return nd.process.paired_draws.PairedDraws.draw(known().train, count).at(schedule, CLEAN)


@pytest.mark.parametrize("target", ["epsilon", "x0", "v", "score", "flow", "F"])
@pytest.mark.parametrize(
    "schedule", [schedules.cosine(), schedules.flow(), schedules.edm()], ids=lambda s: s.name
)
def test_the_exact_denoiser_has_the_density_of_the_data(schedule: Schedule, target: str) -> None:
    x = noisy_points(schedule)
    found = flow_log_density(optimal(schedule, target), x, CLEAN, NOISY, steps=128)
    exact = MODES.log_density(x, schedule.alpha(CLEAN), schedule.sigma(CLEAN))
    torch.testing.assert_close(found, exact, rtol=0, atol=5e-3)


def test_the_error_is_of_second_order() -> None:
    schedule = schedules.cosine()
    denoiser, x = optimal(schedule), noisy_points(schedule)
    fine = flow_log_density(denoiser, x, CLEAN, NOISY, steps=512)
    errors = [
        float((flow_log_density(denoiser, x, CLEAN, NOISY, steps) - fine).square().mean()) ** 0.5
        for steps in (32, 64, 128)
    ]
    orders = [math.log2(coarse / better) for coarse, better in pairwise(errors)]
    assert all(1.7 < order < 2.5 for order in orders), orders


def test_one_turn_changes_the_density_by_the_volume_of_the_map() -> None:
    """An untrained network in float64: the Jacobian of the whole discrete map, by autograd, says the same in the limit."""
    denoiser = small_denoiser().double()
    x = noisy_points(schedules.cosine(), 3)
    found = flow_log_density(denoiser, x, CLEAN, -3.0, steps=400, batch=2)
    start, stop = (torch.tensor(level, dtype=torch.float64) for level in (CLEAN, -3.0))
    for row, value in zip(x, found, strict=True):

        def carried(point: Tensor) -> Tensor:
            with torch.enable_grad():
                return flow_map_with_gradient(denoiser, point[None], float(start), float(stop))[0]

        jacobian = torch.autograd.functional.jacobian(carried, row)
        z = carried(row)
        normal = -float((z.square() + math.log(2 * math.pi)).sum()) / 2
        assert float(value) == pytest.approx(normal + float(torch.linalg.slogdet(jacobian)[1]), abs=1e-4)


def flow_map_with_gradient(denoiser: nd.Denoiser, z: Tensor, start: float, stop: float) -> Tensor:
    """The flow on a variance-preserving path, by Heun's method, through which autograd sees."""
    levels = torch.linspace(start, stop, 401, dtype=torch.float64)
    angles = torch.atan(torch.exp(-levels / 2))
    for k in range(400):
        turn = angles[k + 1] - angles[k]
        first = denoiser(z, levels[k].expand(1))
        second = denoiser(z + turn * first, levels[k + 1].expand(1))
        z = z + turn * (first + second) / 2
    return z


def test_kl_is_zero_for_the_truth_and_known_for_another_normal_distribution() -> None:
    schedule = schedules.cosine()
    truth = kl_divergence(optimal(schedule), known(), log_snr_range=(NOISY, CLEAN))
    assert abs(truth.value) < 5e-3
    wide, data = optimal(schedule, std=0.8, **ONE), normal(4000, seed=1)
    found = kl_divergence(wide, data, samples=2000, log_snr_range=(NOISY, CLEAN), steps=32)
    assert found.low < kl_of_normals(schedule) < found.high
    assert found.high - found.low < 0.2 * found.value


def test_the_interval_of_the_kl_covers() -> None:
    """Of one network, the intervals of different draws hold the value of all in as many cases as they say."""
    schedule, data = schedules.cosine(), normal(30_000, seed=2)
    denoiser, exact = optimal(schedule, std=0.8, **ONE), kl_of_normals(schedule)
    how: dict[str, Any] = {"samples": 60, "steps": 16, "log_snr_range": (NOISY, CLEAN), "confidence": 0.9}
    found = [kl_divergence(denoiser, data, seed=seed, **how) for seed in range(60)]
    covered = sum(one.low < exact < one.high for one in found)
    assert 48 <= covered <= 59  # 54 of 60 expected, 2.6 standard deviations below it
    mean = sum(one.value for one in found) / 60
    assert abs(mean - exact) < 3 * found[0].stderr / 60**0.5 + 5e-3


def test_samples_of_the_flow_are_as_dense_as_it_says() -> None:
    """Importance sampling: the mean of truth / network over the network's own samples is 1."""
    schedule = schedules.cosine()
    denoiser = optimal(schedule, std=1.2, **ONE)
    z = torch.randn(500, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = flow_map(denoiser, z, NOISY, CLEAN, steps=64)
    ratio = MODES.log_density(x, schedule.alpha(CLEAN), schedule.sigma(CLEAN)) - flow_log_density(
        denoiser, x, CLEAN, NOISY
    )
    weights = ratio.exp()
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / 500**0.5


def test_what_is_refused() -> None:
    denoiser, x = small_denoiser(), torch.zeros(2, 2)
    with pytest.raises(InputError, match="stop: expected a log-SNR below start, 2; got 3"):
        flow_log_density(denoiser, x, 2.0, 3.0)
    with pytest.raises(InputError, match="steps"):
        flow_log_density(denoiser, x, 2.0, -3.0, steps=0)
    assert flow_log_density(denoiser, x[:0], 2.0, -3.0).shape == (0,)

    with pytest.raises(InputError, match="KL divergence: expected data of a known mixture; got 'digits'"):
        kl_divergence(denoiser, nd.data.load("digits"))


class Detached(nn.Module):
    """Its output is right, and its gradient lacks a part."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.net = how, Optimal(schedules.cosine(), "epsilon")

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        if self.how == "input":
            x = x.detach()
        with torch.set_grad_enabled(self.how == "input"):
            output: Tensor = self.net(x, log_snr)
        return output


@pytest.mark.parametrize("how", ["input", "no_grad"])
@pytest.mark.parametrize("start", [CLEAN, 8.0])
def test_a_network_whose_gradient_is_not_that_of_its_function_is_refused(how: str, start: float) -> None:
    """Of target epsilon, where the conversion to v still has a gradient, so that the density would be wrong in silence."""
    denoiser = nd.Denoiser(
        Detached(how), schedules.cosine(), "epsilon", call=lambda net, x, log_snr, cond: net(x, log_snr)
    )
    with pytest.raises(MeasurementError, match=r"density: .* off by \d+% of a finite difference"):
        flow_log_density(denoiser, noisy_points(schedules.cosine()), start, NOISY)


def test_a_network_that_does_not_look_at_its_input_moves_all_alike() -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return torch.zeros_like(x)

    x = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    found = flow_log_density(nd.Denoiser(Blind(), schedules.cosine(), "v"), x, 2.0, -3.0, steps=3)
    assert float(found) == pytest.approx(-float(x.square().sum()) / 2 - math.log(2 * math.pi))
