"""Held-out loss of every bucket, with every sample's value kept.

For one seed, all buckets and all networks are given the same data and noise. So two networks are compared
sample by sample, and the variation between samples cancels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ntkdiag.conditions import Conditions, placed, rows_of
from ntkdiag.confidence import quantile
from ntkdiag.data import as_data
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.modes import evaluating
from ntkdiag.process.buckets import Buckets, BucketsLike
from ntkdiag.process.log_snr import level_like
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.train.loss import Batch, denoising_losses


@dataclass(frozen=True)
class BucketValues:
    """One value per bucket and sample.

    Args:
        buckets: The B buckets, measured at their centers.
        per_sample: [B, N] float64 on the CPU; column n is the same data point and noise in every row.

    Example:
        >>> values = nd.train.bucket_losses(denoiser, data, 4, samples=16)
        >>> list(values.table().columns), float((values - values).per_sample.abs().max())
        (['bucket', 'log_snr', 'samples', 'mean', 'stderr', 'low', 'high'], 0.0)
    """

    buckets: Buckets
    per_sample: Tensor

    def table(self, confidence: float = 0.95) -> pd.DataFrame:
        """Mean of each bucket with its confidence interval.

        Args:
            confidence: Level of the Student t interval over samples, in (0, 1).

        Returns:
            One row per bucket with bucket, log_snr, samples, mean, stderr, low, high; stderr, low and high are
            NaN for a single sample.
        """
        count = self.per_sample.shape[1]
        mean = self.per_sample.mean(dim=1).numpy()
        if count > 1:
            stderr = (self.per_sample.std(dim=1) / count**0.5).numpy()
            reach = quantile(confidence, count - 1) * stderr
        else:
            stderr = reach = mean * float("nan")
        return pd.DataFrame(
            {
                "bucket": range(len(self.buckets)),
                "log_snr": self.buckets.centers,
                "samples": count,
                "mean": mean,
                "stderr": stderr,
                "low": mean - reach,
                "high": mean + reach,
            }
        )

    def __sub__(self, other: BucketValues) -> BucketValues:
        """Paired difference, sample by sample, of two measurements on the same draws.

        Raises:
            InputError: the two have different buckets or numbers of samples.
        """
        if self.buckets != other.buckets or self.per_sample.shape != other.per_sample.shape:
            raise InputError(
                "difference of bucket values",
                expected="the same buckets and draws on both sides",
                got=f"{list(self.per_sample.shape)} and {list(other.per_sample.shape)} values",
            )
        return BucketValues(self.buckets, self.per_sample - other.per_sample)


def bucket_losses(
    denoiser: Denoiser,
    data: DataLike | PairedDraws,
    buckets: BucketsLike,
    samples: int = 256,
    seed: int = 0,
    batch: int = 256,
    extrapolate: bool = False,
) -> BucketValues:
    """Unweighted held-out loss at the center of every bucket.

    Args:
        denoiser: The network, measured in eval mode.
        data: `Data`, or what `nd.data.as_data` takes, whose held-out part is drawn from; or draws, and then `samples` and
            `seed` are not used.
        buckets: The buckets, a count over the range in which the schedule trains, or edges.
        samples: Number of held-out points, drawn without replacement; all of them if there are fewer.
        seed: Seed of points and noise.
        batch: Samples per forward pass.
        extrapolate: Also take buckets at noise levels that the schedule never trains.

    Returns:
        Squared error of the denoiser's target, averaged over dimensions, for every bucket and sample.

    Raises:
        InputError: buckets outside the schedule's support without `extrapolate`.

    Example:
        >>> network = nd.models.build("mlp", (2,))
        >>> denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> losses = bucket_losses(denoiser, nd.data.load("mixture"), nd.Buckets.uniform(-8, 8, 4))
        >>> losses.per_sample.shape
        torch.Size([4, 256])
    """
    if isinstance(data, PairedDraws):
        draws = data
    else:
        given = as_data(data)
        held_out = given.held_out_for("the held-out loss")
        draws = PairedDraws.draw(held_out, min(samples, len(held_out)), seed, cond=given.held_out_conditions)
    buckets = Buckets.of(buckets, denoiser.schedule, extrapolate=extrapolate)
    cond = denoiser.conditions_from(draws.cond)
    rows = []
    with evaluating(denoiser) as like:
        for log_snr in buckets.centers:
            parts = [denoising_losses(denoiser, part) for part in _batches(draws, cond, log_snr, batch, like)]
            rows.append(torch.cat(parts).double().cpu())
    return BucketValues(buckets, torch.stack(rows))


def _batches(
    draws: PairedDraws, cond: Conditions, log_snr: float, size: int, like: Tensor
) -> Iterator[Batch]:
    """The draws at one log-SNR, in parts, on the device and in the dtype of `like`."""
    for part in torch.arange(len(draws)).split(size):
        level = level_like(log_snr, like).expand(len(part))
        given = placed(rows_of(cond, part), like) or None
        yield Batch(draws.x0[part].to(like), draws.epsilon[part].to(like), level, given)
