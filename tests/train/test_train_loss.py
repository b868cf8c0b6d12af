"""The loss against closed forms, and where its randomness comes from."""

from __future__ import annotations

import pytest
import torch
from train_cases import small_denoiser

from ntkdiag import train
from ntkdiag.denoiser import Denoiser
from ntkdiag.process import schedules, target
from ntkdiag.train.loss import Batch, Generators, denoising_losses, draw_batch


class Constant(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, log_snr):
        return torch.full_like(x, self.value)


def generators(data=0, noise=1, level=2):
    return Generators(*(torch.Generator().manual_seed(seed) for seed in (data, noise, level)))


@pytest.mark.parametrize("name", target.TARGETS)
@pytest.mark.parametrize(
    "schedule", [schedules.cosine(), schedules.flow(), schedules.edm()], ids=lambda s: s.name
)
def test_loss_of_a_constant_is_the_mean_squared_distance_to_the_target(schedule, name):
    denoiser = Denoiser(Constant(0.5), schedule, name)
    x0 = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    epsilon = torch.tensor([[0.3, 0.1], [-1.0, 2.0]], dtype=torch.float64)
    log_snr = torch.tensor([-1.5, 2.0], dtype=torch.float64)
    losses = denoising_losses(denoiser, Batch(x0, epsilon, log_snr))
    for n in range(2):
        c_x, c_epsilon = target.coefficients(name, schedule, float(log_snr[n]))
        by_hand = [(0.5 - float(c_x * x0[n, d] + c_epsilon * epsilon[n, d])) ** 2 for d in range(2)]
        assert float(losses[n]) == pytest.approx(sum(by_hand) / 2, rel=1e-12)


def test_network_sees_the_noisy_input_and_its_own_label():
    seen = {}

    def call(network, x, log_snr, cond):
        seen.update(x=x, log_snr=log_snr, cond=cond)
        return network(x, log_snr)

    schedule = schedules.flow()
    denoiser = Denoiser(Constant(0.0), schedule, "flow", call=call)
    batch = Batch(torch.ones(3, 2), 2 * torch.ones(3, 2), torch.tensor([-1.0, 0.0, 1.0]))
    labels = torch.arange(3)
    denoising_losses(denoiser, batch._replace(cond=labels))
    t = torch.sigmoid(-batch.log_snr / 2)[:, None]
    assert torch.allclose(seen["x"], (1 - t) * batch.x0 + t * batch.epsilon)
    assert torch.equal(seen["log_snr"], batch.log_snr)
    assert seen["cond"] is labels


def test_each_thing_drawn_has_a_generator_of_its_own():
    data = torch.arange(50.0)[:, None]
    schedule = schedules.cosine()
    base = draw_batch(data, schedule, 8, generators())
    for field, changed in (("x0", {"data": 9}), ("epsilon", {"noise": 9}), ("log_snr", {"level": 9})):
        other = draw_batch(data, schedule, 8, generators(**changed))
        for name in ("x0", "epsilon", "log_snr"):
            assert torch.equal(getattr(base, name), getattr(other, name)) == (name != field)


def test_batches_cover_the_data_evenly_and_follow_the_density():
    data = torch.arange(10.0)[:, None]
    schedule = schedules.cosine()
    batch = draw_batch(data, schedule, 20_000, generators())
    counts = torch.bincount(batch.x0.flatten().long(), minlength=10)
    assert (counts - 2000).abs().max() < 5 * 2000**0.5
    share = (schedule.cdf(batch.log_snr.double())).sort().values
    assert (share - torch.linspace(0, 1, 20_000)).abs().max() < 1.7 / 20_000**0.5  # Kolmogorov, p = 0.006
    assert batch.epsilon.std() == pytest.approx(1.0, abs=0.03)
    assert batch.log_snr.dtype == data.dtype


def test_public_names_exist():
    assert all(hasattr(train, name) for name in train.__all__)
    assert small_denoiser().target == "v"
