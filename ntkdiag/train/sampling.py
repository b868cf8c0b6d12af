"""Samples from a denoiser: by Heun's method along the probability-flow ODE, by DDIM, or by ancestral sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.conditions import Conditions, checked_conditions, placed, rows_of
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.errors import InputError, require_number, require_one_of, require_positive_int
from ntkdiag.modes import evaluating
from ntkdiag.process import target
from ntkdiag.process.log_snr import level_like
from ntkdiag.randomness import generator
from ntkdiag.train.denoising_steps import Noise, denoising_steps
from ntkdiag.train.flow import flow_map, path_scale, trained_range
from ntkdiag.train.guidance import guided

SAMPLERS = ("heun", "ddim", "ancestral")


def sample(
    denoiser: Denoiser,
    count: int,
    shape: tuple[int, ...],
    *,
    steps: int = 32,
    seed: int = 0,
    log_snr_range: tuple[float, float] | None = None,
    cond: Conditions | Tensor | None = None,
    guidance: float | None = None,
    batch: int = 1024,
    sampler: str = "heun",
) -> Tensor:
    """Draw samples: noise is carried to high log-SNR and denoised there once more.

    Args:
        denoiser: Network, schedule and target.
        count: Number of samples.
        shape: Shape of one sample.
        steps: Steps of the sampler, of equal log-SNR.
        seed: Seed of the noise, which depends on nothing else: for one seed, all networks start from the same noise.
        log_snr_range: Log-SNR at the start and the end; by default where the schedule trains, within [-10, 10].
        cond: Conditions of the samples by name, [count, ...]; a tensor where the network takes a single one. With None a
            network that takes conditions gets those that stand for none.
        guidance: Scale w of classifier-free guidance: the prediction is f(x) + w (f(x, cond) − f(x)), f(x) that without
            condition (Ho & Salimans 2022, arXiv 2207.12598, equation 6 with w − 1 for their w). 1 is no guidance, 0 ignores
            the condition. All targets are affine in each other at one x, so that one w means the same for all.
        batch: Samples per network call.
        sampler: "heun" (see `flow_map`; two network calls a step), "ddim" (one call a step, no fresh noise), or "ancestral"
            (one call a step, and noise as in the reverse process). See `ntkdiag.train.denoising_steps`.

    Returns:
        [count, *shape] in the network's dtype, on its device.

    Raises:
        InputError: a count or number of steps below 1, an unknown sampler, a range whose start is not below its end,
            conditions that do not fit the network, or guidance where nothing is known that stands for no condition.

    Example:
        >>> network = nd.models.build("mlp", (2,))
        >>> denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> sample(denoiser, 10, (2,), steps=4).shape
        torch.Size([10, 2])
        >>> sample(denoiser, 10, (2,), steps=8, sampler="ddim").shape
        torch.Size([10, 2])
        >>> labelled = nd.Denoiser(nd.models.build("mlp", (2,), classes=3), nd.schedules.cosine(), "v", call="log_snr")
        >>> sample(labelled, 10, (2,), steps=4, cond={"label": torch.full((10,), 2)}, guidance=2.0).shape
        torch.Size([10, 2])
    """
    require_denoiser("network to sample from", denoiser)
    require_positive_int("count", count)
    require_positive_int("batch", batch)
    require_positive_int("steps", steps)
    require_one_of("sampler", sampler, SAMPLERS)
    if guidance is not None:
        require_number("guidance", guidance)
    start, stop = log_snr_range or trained_range(denoiser)
    if not start < stop:
        raise InputError("log_snr_range", expected="two numbers, the lower one first", got=(start, stop))
    given = _conditions(denoiser, cond, count)
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parts = []
    with evaluating(denoiser) as like:
        for chosen in torch.arange(count).split(batch):
            some = placed(rows_of(given, chosen), like) or None
            z = noise[chosen].to(like)
            x = z * path_scale(denoiser, start, z)
            if sampler == "heun":
                x = flow_map(denoiser, x, start, stop, steps, some, guidance)
            else:
                fresh = _fresh_noise(seed, noise.shape, chosen, z) if sampler == "ancestral" else None
                x = denoising_steps(denoiser, x, start, stop, steps, some, guidance, fresh)
            prediction = guided(denoiser, x, level_like(stop, x).expand(len(x)), some, guidance)
            parts.append(target.to_x0(denoiser.target, denoiser.schedule, stop, prediction, x))
    return torch.cat(parts)


def _conditions(denoiser: Denoiser, cond: Conditions | Tensor | None, count: int) -> dict[str, Tensor]:
    """The conditions of all samples by name; where none are given, those that stand for none."""
    if cond is None:
        return denoiser.null_conditions(count)
    if isinstance(cond, Tensor) and len(denoiser.conditions) == 1:
        cond = {next(iter(denoiser.conditions)): cond}
    return denoiser.conditions_from(checked_conditions("cond", cond, count))


def _fresh_noise(seed: int, shape: torch.Size, chosen: Tensor, like: Tensor) -> Noise:
    """The noise of each step, drawn for all samples, so that it does not depend on the batches."""

    def noise(step: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator(seed, f"sampling step {step}"), dtype=torch.float64)
        return drawn[chosen].to(like)

    return noise
