"""What every process of a group does in the tests of shared training: build a network from a seed, and train it."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from train_cases import QUICK, Doubling, small_data, small_denoiser

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.train import TrainConfig, train
from ntkdiag.train.checkpoints import run_folder
from ntkdiag.weights import LearnedUncertainty, Refresher

ODD = dataclasses.replace(QUICK, batch=15)


def rank() -> int:
    """Number of this process; 0 for one alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


class ForSome(nn.Module):
    """One parameter is used where a sample is large, one where a sample is small, one never; or an error is raised."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.large, self.small, self.never = (nn.Parameter(torch.ones(2)) for _ in range(3))
        self.fails = fails

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        found = x.detach().clone()
        for some, scale in ((x[:, 0] > 0.7, self.large), (x[:, 0] < -0.7, self.small)):
            if some.any():
                found = torch.where(some[:, None], x * scale, found)
        if self.fails and rank() == 1:
            raise ValueError("a strange sample")
        return found


class Normed(nn.Module):
    """Remembers what it saw, in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.norm(self.layer(x))


class Dropping(nn.Module):
    """Draws itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.masks = nn.Parameter(torch.ones(2)), []

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        mask = torch.rand(1)
        if self.training:
            self.masks.append(float(mask))
        return x * self.scale * mask


def network(kind: str, seed: int = 0) -> Denoiser:
    """A network to train; `kind` is a number type, or a class of this file."""
    if kind.startswith("float"):
        return small_denoiser(seed, dtype=getattr(torch, kind))
    torch.manual_seed(seed)
    made = {"some": ForSome, "failing": lambda: ForSome(True), "norm": Normed, "drop": Dropping}[kind]()
    return Denoiser(made, schedules.cosine(), "v", call="log_snr")


def measured(denoiser: Denoiser) -> tuple[Tensor, Tensor]:
    """A score of the network as it is now."""
    size = sum(float(one.detach().norm()) for one in denoiser.network.parameters())
    return torch.tensor([-4.0, 4.0]), torch.tensor([size, 1.0])


def trained(
    kind: str, config: TrainConfig, out: Path | None = None, *, weights: str = "", **options: Any
) -> dict[str, Any]:
    """A run: its history, parameters and buffers, those of the average, and the state of its weights."""
    denoiser = network(kind)
    source: Any = {
        "": None,
        "doubling": Doubling(),
        "learned": LearnedUncertainty("v", denoiser.schedule, features=8),
        "measured": Refresher(lambda: measured(denoiser), "v", denoiser.schedule, every=4),
    }[weights]
    found = train(denoiser, small_data(), source, config, out=out, **options)
    columns = found.history.drop(columns="seconds")
    return {
        "history": {name: torch.tensor(columns[name].tolist()) for name in columns},
        "network": dict(denoiser.network.state_dict()),
        "average": dict(found.denoiser.network.state_dict()),
        "weights": {} if source is None else source.state_dict(),
    }


def seeded_apart() -> None:
    """Processes whose networks differ."""
    train(network("float32", rank()), small_data(), None, QUICK, distributed=True)


def masks() -> list[float]:
    """What a network drew itself in this process."""
    denoiser = network("drop")
    train(denoiser, small_data(), None, dataclasses.replace(QUICK, steps=3), distributed=True)
    return denoiser.network.masks


def reported(out: Path) -> int:
    """How often this process was told of progress."""
    calls: list[int] = []
    train(
        network("float32"),
        small_data(),
        None,
        QUICK,
        out=out,
        distributed=True,
        progress=lambda *said: calls.append(1),
    )
    return len(calls)


class Sour(Doubling):
    """Infinite weights in a step."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return super().__call__(log_snr) / (self.steps != 7)


def sour(out: Path) -> None:
    """A loss that is not finite at step 8."""
    train(network("float32"), small_data(), Sour(), QUICK, out=out, distributed=True)


def interrupted(out: Path) -> str:
    """Ctrl-C in process 1 alone, at the end of step 7."""

    def interrupt(step: int) -> None:
        if step == 7 and rank() == 1:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        train(network("float32"), small_data(), Doubling(interrupt), QUICK, out=out, distributed=True)
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        signal.signal(signal.SIGINT, before)
    return "not interrupted"


def full_disk(out: Path) -> None:
    """The first process cannot write the checkpoint of step 12."""
    usual = run_folder.write_checkpoint

    def write(folder: Path, manifest: Any, *rest: Any) -> None:
        if manifest.step == 12:
            raise InputError(str(folder), expected="room on the disk", got="none")
        usual(folder, manifest, *rest)

    run_folder.write_checkpoint = write
    try:
        train(network("float32"), small_data(), None, QUICK, out=out, distributed=True)
    finally:
        run_folder.write_checkpoint = usual


def in_torchs_own() -> None:
    """A network that torch averages the gradients of."""
    denoiser = network("float32")
    denoiser.network = nn.parallel.DistributedDataParallel(denoiser.network)
    train(denoiser, small_data(), None, QUICK, distributed=True)
