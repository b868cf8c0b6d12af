"""Everything that changes during training (weights, average, optimizers, generators), as tensors of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process.buckets import Buckets
from ntkdiag.state_dicts.fit import check_fit, load_state
from ntkdiag.state_dicts.weight_files import state_of
from ntkdiag.train.alignment.aligner import Aligner
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.history import ALIGN_LOSS, Meter
from ntkdiag.train.loss import Generators
from ntkdiag.train.moving_average import Average
from ntkdiag.train.network_state import hold, of_another_shape, outside_state_dict
from ntkdiag.train.optimizers import memory, optimizers_of, remember


class TrainState:
    """Network, average, optimizers, random generators and the current row of the history.

    Args:
        denoiser: Trained in place.
        config: Settings of the run.
        buckets: Buckets of the history.
        aligner: What aligns features, where the settings ask for it.

    Raises:
        InputError: the network has no parameter that requires grad, or torch lacks the optimizer.
    """

    def __init__(
        self, denoiser: Denoiser, config: TrainConfig, buckets: Buckets, aligner: Aligner | None = None
    ) -> None:
        self.denoiser = denoiser
        self.average = Average(denoiser, config.ema_decay, config.ema_width)
        self.trained = {name: p for name, p in denoiser.network.named_parameters() if p.requires_grad}
        if not self.trained:
            raise InputError("network", expected="at least one parameter that requires grad", got="none")
        self.device = next(iter(self.trained.values())).device
        self.aligner = aligner
        self.learned = self.trained | ({} if aligner is None else aligner.learned)
        self.optimizers = optimizers_of(config, self.learned.values())
        self.config = config
        made = Generators(*_seeded(config.seed, len(Generators._fields), self.device))
        self.generators = made if config.condition_dropout else made._replace(drop=None)
        also = () if aligner is None else (ALIGN_LOSS,)
        self.meter = Meter(buckets, config.log_every, self.device, also)
        self.step = 0

    def clear_gradients(self) -> None:
        """Forget the gradients of the step before."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def clip_gradients(self) -> Tensor:
        """Clip the gradients; returns their norm before that."""
        limit = math.inf if self.config.gradient_clip is None else self.config.gradient_clip
        return torch.nn.utils.clip_grad_norm_(self.learned.values(), limit)

    def take_step(self) -> None:
        """One step of the optimizers by the gradients, and of the average."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.rate(self.step)
            optimizer.step()
        self.average.update(self.step)
        self.step += 1

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the whole state on the CPU; each name begins with its part: model, average, held, optimizer, ..."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": state_of(self.denoiser.network),
            "average": state_of(self.average.denoiser.network),
            "held": outside_state_dict(self.denoiser.network),
            "optimizer": memory(self.optimizers, self.learned),
            "align": {} if self.aligner is None else self.aligner.state_dict(),
            "generator": self._generator_states(),
            "meter": self.meter.state,
        }
        return {
            f"{part}.{name}": value.detach().to("cpu", copy=True).contiguous()
            for part, state in parts.items()
            for name, value in state.items()
        }

    def load(self, tensors: Mapping[str, Tensor], step: int, filled: int, what: str) -> None:
        """Restore the state of a checkpoint.

        Args:
            tensors: The tensors that `tensors` returned.
            step: Number of steps done.
            filled: Number of steps in the current row of the history.
            what: Name of the checkpoint in an error.

        Raises:
            InputError: the tensors do not fit this network, or contain a NaN.
        """
        for part, network in (("model", self.denoiser.network), ("average", self.average.denoiser.network)):
            stored = part_of(tensors, part)
            hold(network, of_another_shape(network, stored))
            load_state(network, stored, f"{what}: {part}")
        hold(self.denoiser.network, part_of(tensors, "held"))
        self.average.take_over_buffers()
        if self.aligner is not None:
            load_state(self.aligner, part_of(tensors, "align"), f"{what}: align")
        remember(self.optimizers, self.learned, part_of(tensors, "optimizer"), f"{what}: optimizer")
        generators = part_of(tensors, "generator")
        check_fit(self._generator_states(), generators, f"{what}: generators")
        for name, generator in self._generators().items():
            generator.set_state(generators[name])
        meter = part_of(tensors, "meter")
        check_fit(self.meter.state, meter, f"{what}: meter")
        for name, value in self.meter.state.items():
            value.copy_(meter[name])
        self.meter.filled = filled
        self.step = step

    def _generator_states(self) -> dict[str, Tensor]:
        return {name: generator.get_state() for name, generator in self._generators().items()}

    def _generators(self) -> dict[str, torch.Generator]:
        return {name: each for name, each in self.generators._asdict().items() if each is not None}


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part of a checkpoint, by their own names."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _seeded(seed: int, count: int, device: torch.device) -> list[torch.Generator]:
    """Independent generators from one seed; with numpy's SeedSequence, neighbouring seeds are independent too."""
    seeds = np.random.SeedSequence(seed).generate_state(count)
    return [torch.Generator(device).manual_seed(int(value)) for value in seeds]
