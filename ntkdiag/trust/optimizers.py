"""From where training goes on: the network, its optimizers and how a step is taken, as copies that may be changed.

The optimizer is the user's own with its state, that of a training run's checkpoint, or a fresh one by name.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, kind_of, require_one_of
from ntkdiag.kernel.preconditioner import adam
from ntkdiag.process.buckets import Buckets
from ntkdiag.train.alignment.aligner import Aligner, stored_aligner
from ntkdiag.train.checkpoints.checkpoint import read_checkpoint
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.network_state import copied
from ntkdiag.train.optimizers import muon_and_adamw
from ntkdiag.train.state import TrainState, part_of

# The user's own, one or several (Muon serves matrices only); a training folder; or a name of `FRESH`.
OptimizerLike = Optimizer | Sequence[Optimizer] | Path | str
DEFAULT_BATCH = 128


@dataclass(frozen=True, eq=False)
class Start:
    """A state of training.

    Attributes:
        denoiser: The network as it is now; not the moving average of its weights.
        optimizers: Those that hold its parameters.
        name: Of the optimizer, and where its state is from.
        batch: Samples in a step.
        clip: Largest norm of the gradient, or infinite.
        rate: From the number of steps from here to the learning rate; None for that of the optimizer.
        aligner: What aligns features in a run that does, and the weight of that.
    """

    denoiser: Denoiser
    optimizers: tuple[Optimizer, ...]
    name: str
    batch: int
    clip: float = math.inf
    rate: Callable[[int], float] | None = None
    aligner: tuple[Aligner | None, float] = (None, 0.0)

    def copy(self) -> Start:
        """The same state in tensors of its own."""
        aligner, weight = self.aligner
        aligned = copy.deepcopy(aligner)
        moved = {} if aligner is None or aligned is None else _pairs(aligner, aligned)
        denoiser, optimizers = _copied(self.denoiser, self.optimizers, moved)
        return Start(denoiser, optimizers, self.name, self.batch, self.clip, self.rate, (aligned, weight))

    @property
    def learned(self) -> list[nn.Parameter]:
        """Every parameter that training moves: those of the network, and of what aligns it."""
        aligner = self.aligner[0]
        return _trained(self.denoiser) + ([] if aligner is None else list(aligner.learned.values()))

    @property
    def preconditioner(self) -> dict[str, Tensor] | None:
        """√v̂ + eps by parameter name, where one Adam or AdamW holds every trained parameter and has a state."""
        trained = {id(p) for p in self.denoiser.parameters() if p.requires_grad}
        if len(self.optimizers) != 1 or not isinstance(self.optimizers[0], torch.optim.Adam):
            return None
        held = {id(p) for group in self.optimizers[0].param_groups for p in group["params"]}
        try:
            return adam(self.optimizers[0], self.denoiser) if trained <= held else None
        except InputError:  # before its first step
            return None


def start_of(
    denoiser: Denoiser, optimizer: OptimizerLike, *, learning_rate: float, batch: int | None
) -> Start:
    """Where training goes on from.

    Args:
        denoiser: Left as it is.
        optimizer: See `nd.trust.linearization`.
        learning_rate: Of a fresh optimizer.
        batch: Samples in a step; None for the run's, or 128.

    Raises:
        InputError: an unknown optimizer, one of another network, or a folder without a checkpoint that fits.
    """
    if isinstance(optimizer, str) and optimizer in FRESH:
        own = copied(denoiser)
        made = FRESH[optimizer](own, learning_rate)
        name = f"{_names(made)}, fresh, learning rate {learning_rate:g}"
        return Start(own, made, name, batch or DEFAULT_BATCH)
    if isinstance(optimizer, Path) or (isinstance(optimizer, str) and Path(optimizer).is_dir()):
        return _of_run(denoiser, Path(optimizer), batch)
    if isinstance(optimizer, str):
        require_one_of("optimizer", optimizer, FRESH)
    given = (optimizer,) if isinstance(optimizer, Optimizer) else optimizer
    if not isinstance(given, Sequence) or not given or not all(isinstance(one, Optimizer) for one in given):
        expected = f"a torch optimizer, several, the folder of a training run, or one of {', '.join(FRESH)}"
        raise InputError("optimizer", expected=expected, got=kind_of(optimizer))
    _require_holding(denoiser, given)  # type: ignore[arg-type]
    own, theirs = _copied(denoiser, tuple(given))  # type: ignore[arg-type]
    name = f"{_names(theirs)} as given"
    return Start(own, theirs, name, batch or DEFAULT_BATCH)


def _of_run(denoiser: Denoiser, folder: Path, batch: int | None) -> Start:
    """The last checkpoint of a training run: its weights (not their average), its optimizers and its settings."""
    manifest, tensors = read_checkpoint(folder)
    config = TrainConfig.from_dict(manifest.config)
    own = copied(denoiser)
    aligner = stored_aligner(own, config, part_of(tensors, "align"), str(folder)) if config.align else None
    state = TrainState(own, config, Buckets.from_edges(manifest.problem["buckets"]), aligner)
    state.load(tensors, manifest.step, manifest.filled, str(folder))
    clip = math.inf if config.gradient_clip is None else config.gradient_clip
    at = manifest.step
    return Start(
        state.denoiser,
        state.optimizers,
        f"{_names(state.optimizers)} as at step {at:,} of the run",
        batch or config.batch,
        clip,
        lambda done: config.rate(at + done),
        (aligner, config.align),
    )


def _names(optimizers: Sequence[Optimizer]) -> str:
    return " and ".join(type(one).__name__ for one in optimizers)


def _copied(
    denoiser: Denoiser, optimizers: tuple[Optimizer, ...], moved: dict[int, Any] | None = None
) -> tuple[Denoiser, tuple[Optimizer, ...]]:
    """Copies in which the optimizers hold the parameters of the copied network, and others that were moved."""
    own = copied(denoiser)
    memo = _pairs(denoiser, own) | (moved or {})
    return own, tuple(copy.deepcopy(one, dict(memo)) for one in optimizers)


def _pairs(old: nn.Module, new: nn.Module) -> dict[int, Any]:
    """The identity of each old parameter → the new one."""
    return {id(a): b for a, b in zip(old.parameters(), new.parameters(), strict=True)}


def _require_holding(denoiser: Denoiser, optimizers: Sequence[Optimizer]) -> None:
    known = {id(p) for p in denoiser.parameters()}
    held = [p for one in optimizers for group in one.param_groups for p in group["params"]]
    if not all(id(p) in known for p in held):
        raise InputError(
            "optimizer",
            expected="an optimizer of this network's parameters",
            got="parameters of another network",
            fix="Make it of denoiser.parameters().",
        )


def _sgd(network: nn.Module, learning_rate: float) -> tuple[Optimizer, ...]:
    return (torch.optim.SGD(_trained(network), lr=learning_rate),)


def _adamw(network: nn.Module, learning_rate: float) -> tuple[Optimizer, ...]:
    return (torch.optim.AdamW(_trained(network), lr=learning_rate, weight_decay=0.0),)


def _muon(network: nn.Module, learning_rate: float) -> tuple[Optimizer, ...]:
    settings = {"lr": learning_rate, "weight_decay": 0.0}
    return muon_and_adamw(_trained(network), settings, settings)


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


FRESH: dict[str, Callable[[nn.Module, float], tuple[Optimizer, ...]]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "muon": _muon,
}
