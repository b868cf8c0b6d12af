"""Neighbouring statements: what else a network's output may be, and in what other units its time may count."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ntkdiag.adapters.preconditioning import c_noise, input_factor
from ntkdiag.adapters.reading import Calling, OfLevel, Reading, sigma_of
from ntkdiag.process.log_snr import vp_alpha, vp_sigma
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.continuous import EDM, Cosine, Flow
from ntkdiag.process.schedules.discrete import LinearBeta, LogSNRTable, ScaledLinearBeta

# What an output is compared with, as y = c_x x0 + c_ε ε: from log-SNR [B] to the two coefficients.
Coefficients = tuple[Tensor, Tensor]


def outputs(reading: Reading, levels: Tensor) -> Iterator[tuple[str, Coefficients]]:
    """Name and coefficients of everything that the output of the network may be, at levels [B]."""
    zero, one = torch.zeros_like(levels), torch.ones_like(levels)
    sigma = sigma_of(levels)
    found: dict[str, Coefficients] = {
        "epsilon": (zero, one),
        "x0": (one, zero),
        "v": (-vp_sigma(levels), vp_alpha(levels)),
        "flow": (-one, one),
        "score": (zero, -1 / reading.schedule.sigma(levels)),
    }
    if isinstance(reading.schedule, EDM):
        for deviation in dict.fromkeys((reading.schedule.sigma_data, *_deviations(reading.schedule))):
            total = torch.hypot(sigma, torch.full_like(sigma, deviation))
            found[f"F (sigma_data {deviation:g})"] = (sigma / (deviation * total), -deviation / total)
    for name, (c_x, c_epsilon) in found.items():
        yield name, (c_x, c_epsilon)
        yield f"−{name}", (-c_x, -c_epsilon)


def callings(reading: Reading) -> Iterator[tuple[str, Calling]]:
    """Other times that the network may be called with, and other scales of its input."""
    call = reading.call
    if call.fixed:
        return
    for name, time in _times(reading.schedule, call).items():
        yield name, replace(call, time=time)
    if isinstance(reading.schedule, EDM) and call.convert is None:
        own = () if call.scale is not None else (reading.schedule.sigma_data,)
        for deviation in (*own, *_deviations(reading.schedule)):
            name = f"{reading.call.time_name}, with c_in of sigma_data {deviation:g}"
            yield name, replace(call, scale=input_factor(deviation))


def other_paths(reading: Reading) -> Iterator[tuple[str, Calling]]:
    """The network on other paths at the same log-SNR, with their times."""
    if reading.call.fixed:
        return
    alpha_sigma = reading.schedule.alpha, reading.schedule.sigma

    def to_path(log_snr: Tensor, path: Schedule) -> Tensor:
        own = torch.hypot(alpha_sigma[0](log_snr), alpha_sigma[1](log_snr))
        return torch.hypot(path.alpha(log_snr), path.sigma(log_snr)) / own

    flow, preserving, exploding = Flow(), Cosine(), EDM()
    for path, times in (
        (flow, {"t of flow": flow.time, "1000 t of flow": _times_of(flow.time, 1000.0)}),
        (preserving, {"steps 0…999 of linear betas": LinearBeta().time, "t of cosine": preserving.time}),
        (exploding, {"σ, unscaled x0 + σ ε": sigma_of, "ln(σ)/4, unscaled x0 + σ ε": c_noise}),
    ):
        for name, time in times.items():

            def scale(log_snr: Tensor, path: Schedule = path) -> Tensor:
                return to_path(log_snr, path)

            yield name, replace(reading.call, time=time, scale=scale)


def _deviations(schedule: EDM) -> tuple[float, ...]:
    """Other σ_data: half, double, and those of pictures and latents."""
    own = schedule.sigma_data
    return tuple(one for one in dict.fromkeys((own / 2, own * 2, 0.5, 1.0)) if one != own)


def _times(schedule: Schedule, call: Calling) -> dict[str, OfLevel]:
    """Times beside the one that is stated, by name."""
    found: dict[str, OfLevel] = {"ln(σ)/4": c_noise, "σ": sigma_of, "log-SNR": _itself}
    first, last = schedule.time_range
    if not (math.isfinite(first) and math.isfinite(last)) or isinstance(schedule, EDM):
        flow = Flow().time
        logarithm = {"ln σ": _times_of(c_noise, 4.0), "250 ln σ": _times_of(c_noise, 1000.0)}
        return {
            **found, **logarithm, "−ln(σ)/4": _times_of(c_noise, -1.0), "1000 ln(σ)/4": _times_of(c_noise, 1000.0),
            "σ/(1 + σ)": flow, "1000 σ/(1 + σ)": _times_of(flow, 1000.0),
        }  # fmt: skip

    def unit(log_snr: Tensor) -> Tensor:
        return (schedule.time(log_snr) - first) / (last - first)

    # The largest time that the network is called with, whatever the schedule counts.
    ends = call.time(torch.tensor([-40.0, 40.0], dtype=torch.float64))
    largest = float(ends.abs().max()) or 1.0
    found |= {"t": unit, "1000 t": _times_of(unit, 1000.0)}
    found |= {"1 − t": _flipped(unit, 1.0), "1000 (1 − t)": _flipped(unit, 1000.0)}
    if largest not in (1.0, 1000.0):
        found |= {f"{largest:g} (1 − t)": _flipped(unit, largest)}
    for name, other in _other_betas(schedule).items():
        found[name] = other
    if isinstance(schedule, Flow):
        for shift in (3.0, 1 / 3):
            found[f"{largest:g} t, shifted by {shift:.2g}"] = _shifted(unit, shift, largest)
    return found


def _other_betas(schedule: Schedule) -> dict[str, OfLevel]:
    """The same number of steps with other betas."""
    if not schedule.discrete:
        return {}
    steps = int(schedule.time_range[1]) + 1
    if steps < 2:
        return {}
    angles = (torch.arange(1, steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2
    cosine = -2 * torch.log(torch.tan(angles.clamp(max=math.pi / 2 - 1e-4)))
    return {
        "steps of linear betas": LinearBeta(steps).time,
        "steps of scaled_linear betas": ScaledLinearBeta(steps).time,
        "steps of cosine betas": LogSNRTable(tuple(cosine.tolist())).time,
    }


def _itself(log_snr: Tensor) -> Tensor:
    return log_snr


def _times_of(time: OfLevel, factor: float) -> OfLevel:
    def scaled(log_snr: Tensor) -> Tensor:
        return time(log_snr) * factor

    return scaled


def _flipped(unit: OfLevel, largest: float) -> OfLevel:
    def flipped(log_snr: Tensor) -> Tensor:
        return (1 - unit(log_snr)) * largest

    return flipped


def _shifted(unit: OfLevel, shift: float, largest: float) -> OfLevel:
    def shifted(log_snr: Tensor) -> Tensor:
        t = unit(log_snr)
        return shift * t / (1 + (shift - 1) * t) * largest

    return shifted
