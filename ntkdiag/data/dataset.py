"""A data set: training samples, and held-out samples that the network never sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from ntkdiag.process.bayes import Oracle


@dataclass(frozen=True, repr=False)
class Data:
    """Samples with a fixed split into training and held-out ones.

    Args:
        name: Name of the data in reports.
        train: Training samples [N, *shape], floating point and finite.
        held_out: Held-out samples [M, *shape] of the same dtype.
        oracle: The optimal denoiser of the distribution that the samples come from, where it is known.

    Raises:
        InputError: a part is empty, is not floating point, contains a NaN or infinity, or the parts differ in
            shape or dtype.

    Example:
        >>> points = torch.linspace(-1, 1, 20).reshape(10, 2)
        >>> data = nd.data.Data("line", train=points[:8], held_out=points[8:])
        >>> data.shape
        (2,)
    """

    name: str
    train: Tensor
    held_out: Tensor
    oracle: Oracle | None = None

    def __post_init__(self) -> None:
        for part, samples in (("training", self.train), ("held-out", self.held_out)):
            check_samples(f"{part} samples of '{self.name}'", samples)
        if self.train.shape[1:] != self.held_out.shape[1:] or self.train.dtype != self.held_out.dtype:
            raise InputError(
                f"held-out samples of '{self.name}'",
                expected=f"samples of shape {self.shape} and {self.train.dtype}, as in training",
                got=f"shape {tuple(self.held_out.shape[1:])} and {self.held_out.dtype}",
            )

    def __repr__(self) -> str:
        return (
            f"Data({self.name!r}, shape={self.shape}, train={len(self.train)}, held_out={len(self.held_out)})"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.train.shape[1:])

    @cached_property
    def variance(self) -> float:
        """Variance of the training samples (divisor N), averaged over the dimensions."""
        return float(self.train.double().var(dim=0, correction=0).mean())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of both parts; equal data with an equal split has an equal digest."""
        return provenance.digest(self.train, self.held_out)


def check_samples(what: str, samples: Tensor) -> None:
    """Refuse tensors that are not samples; the error names the first bad sample.

    Args:
        what: Name of the samples in the error.
        samples: Tensor to check, [N, *shape] expected.

    Raises:
        InputError: not floating point, no sample, no dimension, or a NaN or infinity.
    """
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        got = samples.dtype if isinstance(samples, Tensor) else type(samples).__name__
        raise InputError(what, expected="a floating-point tensor [N, ...]", got=got)
    if samples.ndim < 2 or samples.numel() == 0:
        raise InputError(
            what, expected="[N, ...] with at least one sample and one dimension", got=list(samples.shape)
        )
    finite = samples.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = finite.logical_not().nonzero().flatten().tolist()
        raise InputError(
            what,
            expected="finite numbers",
            got=f"a NaN or infinity in sample {bad[0]} ({len(bad)} of {len(finite)} samples affected)",
        )


def split(samples: Tensor, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split samples at random.

    Args:
        samples: [N, *shape].
        held_out: Number of samples to hold out, in [1, N-1].
        seed: Seed of the permutation; the split depends on it and on N alone.

    Returns:
        Training samples [N - held_out, *shape] and held-out samples [held_out, *shape].

    Raises:
        InputError: there are too few samples to leave one in each part.
    """
    count = len(samples)
    if not 1 <= held_out < count:
        raise InputError(
            "samples", expected=f"more than {max(held_out, 1)}, to hold {held_out} of them out", got=count
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return samples[order[held_out:]], samples[order[:held_out]]


def held_out_count(count: int, share: float) -> int:
    """Samples to hold out of `count`: the share rounded up, at least one."""
    return max(1, math.ceil(share * count))
