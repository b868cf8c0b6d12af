"""Networks with the calling conventions of published code, trained on digits; each read by its adapter and by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from analysis.foreign.networks import trained
from ntkdiag.adapters import Calling, Reading
from ntkdiag.adapters.preconditioning import c_noise, input_factor
from ntkdiag.denoiser import Denoiser
from ntkdiag.process import schedules
from ntkdiag.process.schedules.discrete import ScaledLinearBeta

DDPM, FLOW, EDM = schedules.linear_beta(), schedules.flow(), schedules.edm()
SCALED = ScaledLinearBeta(1000, 0.00085, 0.012)


def column(values: Tensor) -> Tensor:
    """[N] → [N, 1, 1, 1]."""
    return values[:, None, None, None]


class Diffusers(nn.Module):
    """forward(sample, timestep)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> Any:
        return SimpleNamespace(sample=self.inner(sample, timestep))


class Preconditioned(nn.Module):
    """D(x, σ, class_labels), as EDM's and k-diffusion's wrappers."""

    sigma_data, label_dim = 0.5, 0

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner_model = inner

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        total = column((sigma**2 + self.sigma_data**2).sqrt())
        inside = self.inner_model(x / total, sigma.log() / 4)
        return (self.sigma_data / total) ** 2 * x + column(sigma) * self.sigma_data / total * inside


class GaussianDiffusion(nn.Module):
    """A process that owns its network, objective and betas."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.model, self.objective = inner, "pred_v"
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        self.register_buffer("betas", betas)
        self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0))


class VPSDE:
    """The SDE object beside a score network."""

    beta_0, beta_1, T = 0.1, 20.0, 1

    def marginal_prob(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        log_mean = -0.25 * t**2 * (self.beta_1 - self.beta_0) - 0.5 * t * self.beta_0
        return column(log_mean.exp()) * x, (1 - (2 * log_mean).exp()).sqrt()


class Labelled(nn.Module):
    """forward(x, t, y) with twice the channels, as DiT and SiT."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.y_embedder = inner, nn.Module()
        self.y_embedder.num_classes = 10

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        out = self.inner(x, t) + 0 * y[:, None, None, None]
        return torch.cat([out, out.square()], dim=1)


class UViT(nn.Module):
    """forward(x, timesteps, y=None)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        return self.inner(x, timesteps)


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        line: The line of glue.
        read: The network by its adapter.
        by_hand: The same network with a call written by hand.
    """

    line: str
    read: Callable[[], Denoiser]
    by_hand: Callable[[], Denoiser]


def steps_of_sde(log_snr: Tensor) -> Tensor:
    """999 t of `VPSDE`, from ln ᾱ = −t²(β₁ − β₀)/2 − t β₀."""
    fallen, first, slope = torch.nn.functional.softplus(-log_snr), 0.1, 19.9
    return 999 * (-first + (first**2 + 2 * slope * fallen).sqrt()) / slope


def epsilon() -> nn.Module:
    return trained(DDPM, "epsilon", DDPM.time, 1000.0)


def preconditioned() -> Preconditioned:
    return Preconditioned(trained(EDM, "F", c_noise, 1.0, 1.0, input_factor(0.5)))


def from_one(log_snr: Tensor) -> Tensor:
    return SCALED.time(log_snr) + 1


def from_noise(log_snr: Tensor) -> Tensor:
    return torch.sigmoid(log_snr / 2)


def hand(network: nn.Module, schedule: Any, target: str, call: Callable[..., Tensor]) -> Denoiser:
    return Denoiser(network, schedule, target, call=lambda net, x, log_snr, cond: call(net, x, log_snr))


def hand_f(net: Any, x: Tensor, log_snr: Tensor) -> Tensor:
    sigma = (-log_snr / 2).exp()
    return net.inner_model(x / column((sigma**2 + 0.25).sqrt()), sigma.log() / 4)


def sde_schedule() -> Any:
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)[1:]
    mean, std = VPSDE().marginal_prob(torch.ones(1000, 1, 1, 1, dtype=torch.float64), t)
    return schedules.from_table(2 * (mean.flatten() / std).log())


def score() -> nn.Module:
    return trained(DDPM, "epsilon", steps_of_sde, 1000.0)


def null(x: Tensor) -> Tensor:
    return torch.full((len(x),), 10)


def families() -> dict[str, Family]:
    """Name → family; networks are trained when they are first asked for."""
    from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

    ddpm = schedules.from_diffusers(DDPMScheduler())

    def in_diffusers(inner: Callable[[], nn.Module], scheduler: Any, target: str, call: Any) -> Family:
        return Family(
            "nd.Denoiser.from_diffusers(model, scheduler)",
            lambda: Denoiser.from_diffusers(Diffusers(inner()), scheduler),
            lambda: hand(Diffusers(inner()), schedules.from_diffusers(scheduler), target, call),
        )

    return {
        "diffusers, epsilon": in_diffusers(
            epsilon, DDPMScheduler(), "epsilon", lambda net, x, level: net(x, ddpm.time(level)).sample
        ),
        "diffusers, EDM": in_diffusers(
            lambda: trained(EDM, "F", c_noise, 1.0, 1.0, input_factor(0.5)),
            EDMEulerScheduler(sigma_data=0.5),
            "F",
            lambda net, x, level: net(x / column(((-level).exp() + 0.25).sqrt()), -level / 8).sample,
        ),
        "diffusers, flow": in_diffusers(
            lambda: trained(FLOW, "flow", schedules.flow(time_scale=1000.0).time, 1000.0),
            FlowMatchEulerDiscreteScheduler(),
            "flow",
            lambda net, x, level: net(x, 1000 * torch.sigmoid(-level / 2)).sample,
        ),
        "EDM": Family(
            "nd.Denoiser.from_edm(network)",
            lambda: Denoiser.from_edm(preconditioned()),
            lambda: hand(preconditioned(), EDM, "F", hand_f),
        ),
        "k-diffusion": Family(
            "nd.Denoiser.from_k_diffusion(model)",
            lambda: Denoiser.from_k_diffusion(preconditioned()),
            lambda: hand(preconditioned(), EDM, "F", hand_f),
        ),
        "GaussianDiffusion": Family(
            "nd.Denoiser.from_gaussian_diffusion(process)",
            lambda: Denoiser.from_gaussian_diffusion(
                GaussianDiffusion(trained(DDPM, "v", DDPM.time, 1000.0))
            ),
            lambda: Denoiser(trained(DDPM, "v", DDPM.time, 1000.0), DDPM, "v"),
        ),
        "score_sde": Family(
            "nd.Denoiser.from_score_sde(network, sde)",
            lambda: Denoiser.from_score_sde(score(), VPSDE()),
            lambda: hand(
                score(), sde_schedule(), "epsilon", lambda net, x, level: net(x, steps_of_sde(level))
            ),
        ),
        "DiT": Family(
            "nd.Denoiser.from_dit(network)",
            lambda: Denoiser.from_dit(Labelled(epsilon())),
            lambda: hand(
                Labelled(epsilon()),
                DDPM,
                "epsilon",
                lambda net, x, level: net(x, DDPM.time(level), null(x))[:, :1],
            ),
        ),
        "SiT": Family(
            "nd.Denoiser.from_sit(network)",
            lambda: Denoiser.from_sit(Labelled(trained(FLOW, "flow", from_noise, 1.0, -1.0))),
            lambda: hand(
                Labelled(trained(FLOW, "flow", from_noise, 1.0, -1.0)),
                FLOW,
                "flow",
                lambda net, x, level: -net(x, 1 - FLOW.time(level), null(x))[:, :1],
            ),
        ),
        "U-ViT": Family(
            "nd.Denoiser.from_uvit(network)",
            lambda: Denoiser.from_uvit(UViT(trained(SCALED, "epsilon", from_one, 1000.0))),
            lambda: hand(
                UViT(trained(SCALED, "epsilon", from_one, 1000.0)),
                SCALED,
                "epsilon",
                lambda net, x, level: net(x, SCALED.time(level) + 1),
            ),
        ),
    }


def wrong_settings(reading: Reading) -> dict[str, Reading]:
    """Five wrong statements of one network."""
    call = reading.call
    others = [name for name in ("x0", "v", "epsilon") if name != reading.target]

    def told(time: Callable[[Tensor], Tensor]) -> Calling:
        return replace(call, time=time)

    def as_target(name: str) -> Reading:
        return replace(reading, target=name, call=replace(call, convert=None, output_target=None))

    types = {"target": as_target("F" if call.convert else others[0]), "another target": as_target(others[1])}
    if call.convert:
        direction, unit = (lambda level: (level / 2).exp()), (lambda level: -level / 8)
    else:
        largest = float(call.time(torch.tensor([-40.0, 40.0])).abs().max())
        bounded = reading.schedule.name != "edm"
        direction = lambda level: (largest if bounded else 0.0) - call.time(level)  # noqa: E731
        unit = lambda level: call.time(level) * (1000 if largest < 10 else 1e-3)  # noqa: E731
    return types | {
        "sign": replace(reading, call=replace(call, sign=-call.sign)),
        "unit of time": replace(reading, call=told(unit)),
        "direction of time": replace(reading, call=told(direction)),
    }
