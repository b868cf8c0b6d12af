"""The denoising loss of every sample, so that it can be weighted and averaged by noise level."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.conditions import Conditions, placed, replaced, rows_of
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process.log_snr import level_like
from ntkdiag.process.points import Points
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.train.noise_levels import NoiseLevels


class Batch(NamedTuple):
    """The samples of one training step.

    Attributes:
        x0, epsilon: Data and noise, [N, *shape].
        log_snr: [N].
        cond: Conditions by name, [N, ...] each, or None.
        ratio: How many times each loss counts because its level was not drawn by the training density, [N]; None for 1.
        drawn: Which training samples they are, [N]; None where that is not known.

    Example:
        >>> batch = nd.train.Batch(torch.zeros(3, 2), torch.randn(3, 2), torch.tensor([-1.0, 0.0, 1.0]))
        >>> batch.cond is None
        True
    """

    x0: Tensor
    epsilon: Tensor
    log_snr: Tensor
    cond: Any = None
    ratio: Tensor | None = None
    drawn: Tensor | None = None

    def rows(self, part: slice) -> Batch:
        """Some of the samples."""
        return Batch(
            self.x0[part],
            self.epsilon[part],
            self.log_snr[part],
            None if self.cond is None else {name: value[part] for name, value in self.cond.items()},
            None if self.ratio is None else self.ratio[part],
            None if self.drawn is None else self.drawn[part],
        )


class Generators(NamedTuple):
    """A random generator each for data, noise, log-SNR and dropped conditions, so that one can change while others stay."""

    data: torch.Generator
    noise: torch.Generator
    level: torch.Generator
    drop: torch.Generator | None = None


class Labelled(NamedTuple):
    """Conditions of the training samples.

    Attributes:
        cond: By name, [M, ...], on the device of the data.
        null: What stands for "no condition", by name, [1, ...].
        dropout: Share of samples that are trained without condition.
    """

    cond: Conditions
    null: Conditions
    dropout: float

    @classmethod
    def of(cls, denoiser: Denoiser, data: Data, place: Tensor, dropout: float) -> Labelled | None:
        """The conditions that a network takes, like `place` in device and dtype; None where it takes none.

        Raises:
            InputError: conditions that the data lacks, or some to drop where there are none or nothing stands for none.
        """
        cond = placed(denoiser.conditions_from(data.conditions), place)
        if dropout and not cond:
            raise InputError(
                "condition_dropout",
                expected="0 for a network that takes no conditions",
                got=dropout,
                fix="Build the network with {classes}, or name what it takes with {conditions}.",
                arguments={"classes": "K", "conditions": None},
            )
        null = placed(denoiser.null_conditions(1), place) if dropout else {}
        return cls(cond, null, dropout) if cond else None


def draw_batch(
    train: Points,
    schedule: Schedule,
    count: int,
    generators: Generators,
    labelled: Labelled | None = None,
    levels: NoiseLevels | None = None,
) -> Batch:
    """Draw a training batch, with replacement, on the device of the data and the generators.

    Args:
        train: Training samples [M, *shape].
        schedule: Its density is the distribution of the log-SNR.
        count: Samples to draw, N.
        generators: Random generators of data, noise, log-SNR, and of dropped conditions if there are any.
        labelled: Conditions of the samples, for a network that takes them.
        levels: How the log-SNR is drawn; None for at random from that density.
    """
    device = train.device
    index = torch.randint(len(train), (count,), generator=generators.data, device=device)
    x0 = train[index]
    epsilon = torch.randn(x0.shape, generator=generators.noise, device=device, dtype=x0.dtype)
    level, ratio = (levels or NoiseLevels(schedule)).draw(count, generators.level)
    cond = None if labelled is None else _conditions(labelled, index, generators.drop)
    level, ratio = level_like(level, x0), None if ratio is None else level_like(ratio, x0)
    return Batch(x0, epsilon, level, cond, ratio, index)


def _conditions(labelled: Labelled, index: Tensor, drop: torch.Generator | None) -> dict[str, Tensor]:
    """Those of the drawn samples, some of them dropped (classifier-free guidance: Ho & Salimans 2022, arXiv 2207.12598)."""
    cond = rows_of(labelled.cond, index)
    if drop is None:
        return cond
    dropped = torch.rand(len(index), generator=drop, device=index.device) < labelled.dropout
    return replaced(cond, labelled.null, dropped)


def denoising_losses(denoiser: Denoiser, batch: Batch) -> Tensor:
    """Squared error of the denoiser's target, averaged over the dimensions of each sample.

    Args:
        denoiser: Network, schedule and target.
        batch: Data, noise, log-SNR and conditions.

    Returns:
        Unweighted losses [N], ≥ 0.

    Example:
        >>> batch = nd.train.Batch(torch.zeros(3, 2), torch.randn(3, 2), torch.tensor([-1.0, 0.0, 1.0]))
        >>> nd.train.denoising_losses(denoiser, batch).shape
        torch.Size([3])
    """
    x, wanted = denoiser.training_pair(batch.x0, batch.epsilon, batch.log_snr)
    squares = functional.mse_loss(denoiser(x, batch.log_snr, batch.cond), wanted, reduction="none")
    return squares.flatten(1).mean(dim=1)
