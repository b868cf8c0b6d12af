"""How good samples are, without a pretrained feature network: energy distance and exact likelihood.

Every figure comes with its standard error and with what real data scores by the same measure, since a
distance of zero is out of reach for any finite sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.confidence import quantile
from ntkdiag.errors import InputError
from ntkdiag.process.bayes import MixtureOracle

# Elements of a block of pairwise distances held at once: 32 MiB in float64.
_BLOCK = 2**22


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
        low, high: Its interval.
    """

    value: float
    stderr: float
    low: float
    high: float

    @classmethod
    def normal(cls, value: float, stderr: float, confidence: float) -> Estimate:
        """With a normal interval."""
        reach = quantile(confidence) * stderr
        return cls(value, stderr, value - reach, value + reach)


@dataclass(frozen=True)
class EnergyDistance:
    """Energy distance of samples to real data, beside that of real data to itself.

    Attributes:
        samples: Samples against held-out data.
        floor: As many real samples against the same held-out data: what a perfect sampler would score.
    """

    samples: Estimate
    floor: Estimate


def energy_distance(left: Tensor, right: Tensor, confidence: float = 0.95) -> Estimate:
    """2 E‖X-Y‖ - E‖X-X'‖ - E‖Y-Y'‖ (Székely & Rizzo 2013), zero exactly if the distributions are equal.

    The U-statistic: unbiased, so it may fall below zero. The standard error is the jackknife's over both
    samples (Arvesen 1969), which errs on the large side when the distributions are nearly equal.

    Args:
        left: [N, *shape], N at least 3.
        right: [M, *shape], M at least 3.
        confidence: Of the normal interval, in (0, 1).

    Returns:
        The estimate in the units of the data.

    Raises:
        InputError: fewer than three samples on a side, or samples of different shapes.
    """
    if left.shape[1:] != right.shape[1:]:
        raise InputError(
            "energy distance",
            expected=f"samples of shape {tuple(left.shape[1:])}",
            got=tuple(right.shape[1:]),
        )
    for side in (left, right):
        if len(side) < 3:
            raise InputError("energy distance", expected="at least 3 samples on each side", got=len(side))
    x, y = (side.detach().cpu().double().flatten(1) for side in (left, right))
    within_x, within_y, across = _row_sums(x, x), _row_sums(y, y), _row_sums(x, y)
    across_y = _row_sums(y, x)
    value = _statistic(within_x.sum(), within_y.sum(), across.sum(), len(x), len(y))
    # Leaving out one sample removes its row and its column of distances.
    without_x = _statistic(
        within_x.sum() - 2 * within_x, within_y.sum(), across.sum() - across, len(x) - 1, len(y)
    )
    without_y = _statistic(
        within_x.sum(), within_y.sum() - 2 * within_y, across.sum() - across_y, len(x), len(y) - 1
    )
    variance = sum(
        (count - 1) / count * float((without - without.mean()).square().sum())
        for count, without in ((len(x), without_x), (len(y), without_y))
    )
    return Estimate.normal(float(value), variance**0.5, confidence)


def energy_distance_to_data(
    samples: Tensor, held_out: Tensor, real: Tensor, seed: int = 0, confidence: float = 0.95
) -> EnergyDistance:
    """Energy distance of samples to held-out data, with the floor real data sets.

    Args:
        samples: [N, *shape].
        held_out: Real data the network never saw, [M, *shape].
        real: Other real data to measure the floor with, [K, *shape]; the training data.
        seed: Of the choice of as many real samples as there are samples, if there are enough.
        confidence: Of the intervals.

    Raises:
        InputError: fewer than three samples on a side, or samples of different shapes.
    """
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    chosen = real[order[: len(samples)].to(real.device)]
    return EnergyDistance(
        energy_distance(samples, held_out, confidence), energy_distance(chosen, held_out, confidence)
    )


def log_likelihood(samples: Tensor, oracle: MixtureOracle, confidence: float = 0.95) -> Estimate:
    """Mean log-density of samples under the true distribution, in nats per sample.

    It rewards samples near the modes and does not notice a mode left out: read it beside the energy
    distance, and against its value on held-out data (minus the entropy), which it should equal, not exceed.

    Args:
        samples: [N, *shape], N at least 2.
        oracle: The true distribution.
        confidence: Of the normal interval, in (0, 1).

    Raises:
        InputError: fewer than two samples, or samples of another shape.
    """
    if len(samples) < 2:
        raise InputError("log-likelihood", expected="at least 2 samples", got=len(samples))
    values = oracle.log_prob(samples)
    return Estimate.normal(float(values.mean()), float(values.std()) / len(values) ** 0.5, confidence)


def _row_sums(left: Tensor, right: Tensor) -> Tensor:
    """Σ_j ‖left_i - right_j‖ for every i, [N], block by block."""
    rows = max(1, _BLOCK // len(right))
    exact = "donot_use_mm_for_euclid_dist"  # the matrix product loses the digits of small distances
    return torch.cat([torch.cdist(block, right, compute_mode=exact).sum(dim=1) for block in left.split(rows)])


def _statistic(within_x: Tensor, within_y: Tensor, across: Tensor, n: int, m: int) -> Tensor:
    """The U-statistic from sums of distances over ordered pairs."""
    return 2 * across / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))
