"""The networks of the study: data × target × training density × seed, trained and measured, each kept as one folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ntkdiag as nd
from ntkdiag.process.schedules.continuous import Cosine
from ntkdiag.process.schedules.training_distributions import Distribution, Normal, Uniform
from ntkdiag.train import TrainConfig, train


@dataclass(frozen=True)
class Moved(Cosine):
    """The cosine path, whose log-SNR training draws from another distribution."""

    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None

    @cached_property
    def distribution(self) -> Distribution:
        if self.mean is not None and self.std is not None:
            return Normal(self.mean, self.std)
        assert self.low is not None and self.high is not None
        return Uniform(self.low, self.high)


@dataclass(frozen=True)
class Cell:
    """One network.

    Attributes:
        data, target, density: Names in config.json; `density` is "none" for an untrained control.
        seed: Of initialisation and training.
    """

    data: str
    target: str
    density: str
    seed: int

    def folder(self, kept: Path) -> Path:
        return kept / self.data / f"{self.target}-{self.density}-{self.seed}"


def cells(config: dict[str, Any]) -> Iterator[Cell]:
    """Untrained controls first; their kernel is that of every target, since all networks have the same inputs."""
    for data, seed in itertools.product(config["data"], config["controls"]):
        yield Cell(data, config["targets"][0], "none", seed)
    for data, plan in config["data"].items():
        for density, seed, target in itertools.product(plan["densities"], config["seeds"], config["targets"]):
            yield Cell(data, target, density, seed)


def schedule_of(density: str, config: dict[str, Any]) -> nd.schedules.Schedule:
    moved = config["densities"].get(density)
    return nd.schedules.cosine() if moved is None else Moved(**moved)


def measured(cell: Cell, config: dict[str, Any], kept: Path, report: Callable[[str], None]) -> nd.Diagnosis:
    """The diagnosis of a cell: read where it is kept, else trained, measured and kept."""
    folder = cell.folder(kept)
    if folder.exists():
        return nd.Diagnosis.load(folder)
    report(f"{cell.data} {cell.target} {cell.density} {cell.seed}")
    plan, data = config["data"][cell.data], nd.data.load(cell.data)
    network = nd.models.build(plan["network"], data.shape, seed=cell.seed, **plan["options"])
    denoiser = nd.Denoiser(network, schedule_of(cell.density, config), cell.target, call="log_snr")
    if cell.density != "none":
        settings = TrainConfig(
            steps=plan["steps"], batch=plan["batch"], learning_rate=plan["learning_rate"], seed=cell.seed
        )
        denoiser = train(denoiser, data, None, settings).denoiser
    buckets = nd.Buckets.uniform(**config["buckets"])
    found = nd.measure(denoiser, data, buckets, samples=config["samples"], probes=config["probes"])
    found.save(folder)
    return found
