"""How good samples are, without a pretrained feature network: energy distance, exact likelihood, and KL divergence.

Every value has a standard error, and beside it stands the value of real data by the same measure, since no
finite sample has a distance of zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.confidence import quantile
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process.bayes import MixtureOracle
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.process.points import Points
from ntkdiag.train.flow import flow_log_density, trained_range

# Most elements of a block of pairwise distances: 32 MiB in float64.
_BLOCK = 2**22


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
        low, high: Ends of its confidence interval.

    Example:
        >>> nd.train.Estimate(value=1.0, stderr=0.1, low=0.8, high=1.2).value
        1.0
    """

    value: float
    stderr: float
    low: float
    high: float

    @classmethod
    def normal(cls, value: float, stderr: float, confidence: float) -> Estimate:
        """An estimate with a normal confidence interval."""
        reach = quantile(confidence) * stderr
        return cls(value, stderr, value - reach, value + reach)


@dataclass(frozen=True)
class EnergyDistance:
    """Energy distance of samples to real data, and of real data to itself.

    Attributes:
        samples: Distance between samples and held-out data.
        floor: Distance between as many real samples and the same held-out data, as a perfect sampler would have.

    Example:
        >>> found = nd.train.energy_distance_to_data(data.train[:50], data.held_out[:50], data.train)
        >>> found.floor.low <= found.floor.value <= found.floor.high
        True
    """

    samples: Estimate
    floor: Estimate


def energy_distance(left: Tensor, right: Tensor, confidence: float = 0.95) -> Estimate:
    """2 E‖X-Y‖ - E‖X-X'‖ - E‖Y-Y'‖ (Székely & Rizzo 2013), zero exactly if the distributions are equal.

    The U-statistic, which is unbiased and may therefore be negative. The standard error is that of the jackknife over
    both samples (Arvesen 1969), which is too large when the distributions are nearly equal.

    Args:
        left: [N, *shape], N at least 3.
        right: [M, *shape], M at least 3.
        confidence: Level of the normal interval, in (0, 1).

    Returns:
        The estimate, in the units of the data.

    Raises:
        InputError: fewer than three samples on a side, or samples of different shapes.

    Example:
        >>> points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> estimate = energy_distance(points[:100], points[100:])
        >>> estimate.low < 0 < estimate.high
        True
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
    samples: Tensor, held_out: Tensor, real: Points, seed: int = 0, confidence: float = 0.95
) -> EnergyDistance:
    """Energy distance of samples to held-out data, and of real data to the same held-out data.

    Args:
        samples: [N, *shape].
        held_out: Real data that the network never saw, [M, *shape].
        real: Other real data [K, *shape], such as the training data; its distance to `held_out` is the floor.
        seed: Seed of the choice of N points of `real` (all of them if K is smaller).
        confidence: Level of the intervals, in (0, 1).

    Raises:
        InputError: fewer than three samples on a side, or samples of different shapes.

    Example:
        >>> shifted = nd.train.energy_distance_to_data(data.train[:50] + 3, data.held_out[:50], data.train)
        >>> shifted.floor.high < shifted.samples.low  # further than real samples are
        True
    """
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    chosen = real[order[: len(samples)].to(real.device)]
    return EnergyDistance(
        energy_distance(samples, held_out, confidence), energy_distance(chosen, held_out, confidence)
    )


def log_likelihood(samples: Tensor, oracle: MixtureOracle, confidence: float = 0.95) -> Estimate:
    """Mean log-density of samples under the true distribution, in nats per sample.

    It is high for samples near the modes, even if a mode is missing. So read it beside the energy distance, and
    compare it with its value for held-out data (minus the entropy): it should equal that value, not exceed it.

    Args:
        samples: [N, *shape], N at least 2.
        oracle: The true distribution of the data.
        confidence: Level of the normal interval, in (0, 1).

    Raises:
        InputError: fewer than two samples, or samples of another shape.

    Example:
        >>> real = nd.train.log_likelihood(data.held_out, data.oracle)
        >>> nd.train.log_likelihood(data.held_out + 3, data.oracle).high < real.low
        True
    """
    if len(samples) < 2:
        raise InputError("log-likelihood", expected="at least 2 samples", got=len(samples))
    values = oracle.log_prob(samples)
    return Estimate.normal(float(values.mean()), float(values.std()) / len(values) ** 0.5, confidence)


def kl_divergence(
    denoiser: Denoiser,
    data: Data,
    *,
    samples: int = 256,
    steps: int = 64,
    seed: int = 0,
    log_snr_range: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """KL divergence of a network's samples from the true distribution, E ln p − ln q over real data, in nats.

    Both densities are those at the clean end of the range, where a little noise is left. That of the data is exact, that of
    the network but for the steps of `flow_log_density`. Unlike the energy distance it notices a mode of little mass that is
    missing, and unlike the likelihood of samples it is 0 for the true distribution alone. An estimate may be below 0 by
    chance.

    Args:
        denoiser: Network, schedule and target.
        data: Data of a known mixture, whose held-out part is drawn from.
        samples: Number of held-out points; all of them if there are fewer.
        steps: Steps of the flow, see `flow_log_density`.
        seed: Seed of points and noise.
        log_snr_range: Log-SNR of the noise and of the samples; by default as `sample` has it.
        confidence: Level of the normal interval, in (0, 1).

    Raises:
        InputError: data without a known mixture, or fewer than two points.

    Example:
        >>> nd.train.kl_divergence(denoiser, data, samples=64, steps=8).value > 0  # of an untrained network
        True
    """
    if not isinstance(data.oracle, MixtureOracle):
        raise InputError("KL divergence", expected="data of a known mixture", got=f"'{data.name}'")
    held_out = data.held_out_for("the KL divergence")
    count = min(samples, len(held_out))
    if count < 2:
        raise InputError("samples", expected="at least 2 held-out points", got=count)
    low, high = log_snr_range or trained_range(denoiser)
    draws = PairedDraws.draw(held_out, count, seed, cond=data.held_out_conditions)
    x = draws.at(denoiser.schedule, high)
    like = next(denoiser.parameters(), x)
    cond = denoiser.conditions_from(draws.cond) or None
    network = flow_log_density(denoiser, x.to(like), high, low, steps, cond)
    truth = data.oracle.log_density(x, denoiser.schedule.alpha(high), denoiser.schedule.sigma(high))
    gap = truth.double().cpu() - network
    return Estimate.normal(float(gap.mean()), float(gap.std()) / count**0.5, confidence)


def _row_sums(left: Tensor, right: Tensor) -> Tensor:
    """Σ_j ‖left_i - right_j‖ for every i, [N], computed block by block."""
    rows = max(1, _BLOCK // len(right))
    exact = "donot_use_mm_for_euclid_dist"  # a matrix product would lose the digits of small distances
    return torch.cat([torch.cdist(block, right, compute_mode=exact).sum(dim=1) for block in left.split(rows)])


def _statistic(within_x: Tensor, within_y: Tensor, across: Tensor, n: int, m: int) -> Tensor:
    """The U-statistic, from sums of distances over ordered pairs."""
    return 2 * across / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))
