"""Small things the tests of this room share: exact denoisers, and runs that take a fraction of a second."""

from __future__ import annotations

import torch
from torch import nn

from ntkdiag import data, models
from ntkdiag.denoiser import Denoiser
from ntkdiag.process import schedules, target
from ntkdiag.train import TrainConfig

QUICK = TrainConfig(
    steps=12, batch=16, learning_rate=1e-2, warmup=4, log_every=5, checkpoint_every=6, ema_decay=0.9, seed=3
)


class Exact(nn.Module):
    """The posterior mean of an oracle, said in any target: a network no training can improve."""

    def __init__(self, oracle, schedule, name):
        super().__init__()
        self.oracle, self.schedule, self.name = oracle, schedule, name

    def forward(self, x, log_snr):
        level = log_snr.double()
        mean = self.oracle.posterior_mean(x.double(), self.schedule.alpha(level), self.schedule.sigma(level))
        return target.convert(mean, x.double(), level, self.schedule, "x0", self.name).to(x)


def exact_denoiser(oracle, schedule, name):
    network = Exact(oracle, schedule, name)
    return Denoiser(network, schedule, name, call=lambda network, x, log_snr, cond: network(x, log_snr))


def small_denoiser(seed=0, schedule=None, name="v", dtype=torch.float32):
    network = models.build("mlp", (2,), seed=seed, width=8, depth=1, frequencies=4).to(dtype)
    return Denoiser(network, schedule or schedules.cosine(), name, call="log_snr")


def small_data(seed=0):
    return data.mixture(train=200, held_out=100, seed=seed)


class Doubling:
    """Weights that change with every step and must remember it: w = 1 + steps/100 for log-SNR above 0."""

    target = "v"

    def __init__(self, on_step=None):
        self.steps = 0
        self.seen = []
        self.on_step = on_step

    def __call__(self, log_snr):
        return 1 + (log_snr > 0) * (self.steps / 100)

    def after_step(self, step):
        self.steps = step
        self.seen.append(step)
        if self.on_step is not None:
            self.on_step(step)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
