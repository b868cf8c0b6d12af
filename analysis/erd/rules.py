"""The weights of the study, each of mean 1 under the training density, and the pairs that must tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

import ntkdiag as nd
from ntkdiag.cli.inputs.loading import LoadedModel
from ntkdiag.cli.inputs.weighting import fixed
from ntkdiag.diagnosis.bayes import bayes_truth
from ntkdiag.errors import InputError
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights import LearnedUncertainty, Refresher, WeightSource, WeightTable
from ntkdiag.weights.refresh.kernel_probe import probe_score

CONSTANT = "constant"
# From the study's name of a rule to the name and the parameters in the register.
CLOSED: dict[str, tuple[str, dict[str, Any]]] = {
    CONSTANT: ("constant_{target}", {}),
    "erd": ("erd", {}),
    "min_snr_5": ("min_snr", {"gamma": 5.0}),
    "soft_min_snr_5": ("soft_min_snr", {"gamma": 5.0}),
    "p2_1_1": ("p2", {"k": 1.0, "gamma": 1.0}),
    "p2_1_half": ("p2", {"k": 1.0, "gamma": 0.5}),
    "debias": ("debias", {}),
}
# The experiment on the middle of the noise levels: the factor within |log-SNR| < 2, beside 1 outside, and how far the edge
# between the two reaches. Nothing else tells these rules from the constant one.
MIDDLE = {"middle": 3.0, "ends": 1 / 3}
_REACH, _EDGE = 2.0, 0.5
# Scores of the network's kernel, measured again during training.
REFRESHED = ("learnability", "gsnr", "gain")
# The recoverable share is a number of the data, so it is measured once; EDM2's weights follow the losses.
BAYES, EDM2 = "bayes", "edm2"
RULES = (*CLOSED, *MIDDLE, EDM2, BAYES, *REFRESHED)
# MATH section 6: on this target the two rules are the same function. The first is the control, trained for one seed.
TIES = {"epsilon": ("p2_1_half", "erd"), "v": ("debias", "erd"), "flow": ("erd", CONSTANT)}


@dataclass(frozen=True)
class Measuring:
    """How the measured rules measure: samples, buckets, and steps between two refreshes."""

    samples: int
    buckets: int
    every: int


def weights(name: str, target: str, schedule: Schedule, clip: float) -> tuple[WeightTable, bool]:
    """The table of a closed form, and whether it was clipped: only where the rule has no mean under the schedule."""
    registered, parameters = CLOSED[name]
    registered = "uniform" if (name, target) == (CONSTANT, "flow") else registered.format(target=target)
    try:
        return nd.weights.rule(registered, target, schedule, **parameters), False
    except InputError:
        return nd.weights.rule(registered, target, schedule, clip=clip, **parameters), True


def source(
    name: str, start: LoadedModel, clip: float, measuring: Measuring, seed: int
) -> tuple[WeightSource, bool]:
    """The weights that a network is trained with, and whether they were clipped."""
    denoiser, data = start.denoiser, start.data
    target, schedule = denoiser.target, denoiser.schedule
    if name in CLOSED:
        table, clipped = weights(name, target, schedule, clip)
        return fixed(table), clipped
    if name in MIDDLE:
        return fixed(table_of_middle(name, target, schedule)), False
    if name == EDM2:
        return LearnedUncertainty(target, schedule, seed=seed), False
    draws = PairedDraws.draw(data.train, measuring.samples, seed)
    buckets = nd.Buckets.from_density(schedule, measuring.buckets)
    if name == BAYES:
        truth = bayes_truth(denoiser, data, draws, buckets, seed)
        return fixed(table_of_share(buckets, truth.share, target).normalised(schedule)), False
    score = probe_score(denoiser, draws, buckets, name, seed=seed)
    return Refresher(score, target, schedule, every=measuring.every), False


def table_of_middle(name: str, target: str, schedule: Schedule) -> WeightTable:
    """More or less weight between log-SNR −2 and 2 than outside, of mean 1."""
    grid = torch.linspace(-20, 20, 161, dtype=torch.float64)
    inside = torch.sigmoid((grid + _REACH) / _EDGE) - torch.sigmoid((grid - _REACH) / _EDGE)
    return WeightTable(grid, MIDDLE[name] ** inside, target, name).normalised(schedule)


@dataclass(frozen=True)
class _Share:
    """What `nd.weights.measured` reads of a diagnosis."""

    summary: pd.DataFrame
    meta: dict[str, Any]


def table_of_share(buckets: nd.Buckets, share: torch.Tensor, target: str) -> WeightTable:
    """Weights in proportion to the root of the recoverable share, as `nd.weights.measured` makes them."""
    summary = pd.DataFrame(
        {"bucket": range(len(buckets)), "log_snr": buckets.centers, "bayes_share": share.tolist()}
    )
    return nd.weights.measured(_Share(summary, {"config": {"target": target}}), "bayes")
