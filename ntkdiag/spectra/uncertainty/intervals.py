"""Intervals of the statistics of a Gram matrix (effective rank, trace, …), and of comparisons between buckets.

Samples and probes are left out (`left_out`), and the spread becomes an interval (`jackknife`). `Statistic.answer` says
what each interval covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ntkdiag.confidence import Interval
from ntkdiag.spectra.dense.eigen import Array, GramLike, gram_array
from ntkdiag.spectra.dense.named_statistics import Scale, Statistic, statistic
from ntkdiag.spectra.uncertainty.jackknife import interval_from_replicates
from ntkdiag.spectra.uncertainty.left_out import Replicates, leave_out, leave_out_in_buckets


def subsample_interval(
    name: str | Statistic,
    matrix: GramLike,
    *,
    level: float = 0.9,
    stderr: GramLike | None = None,
    per_probe: GramLike | None = None,
) -> Interval:
    """Interval of one statistic: `subsample_intervals` for a single name.

    Example:
        >>> features = np.random.default_rng(0).normal(size=(40, 5))
        >>> found = nd.spectra.subsample_interval("trace", features @ features.T)
        >>> found.low < 5 < found.high  # E ‖feature‖²
        True
    """
    chosen = statistic(name)
    return subsample_intervals([chosen], matrix, level=level, stderr=stderr, per_probe=per_probe)[chosen.name]


def subsample_intervals(
    names: Iterable[str | Statistic],
    matrix: GramLike,
    *,
    level: float = 0.9,
    stderr: GramLike | None = None,
    per_probe: GramLike | None = None,
) -> dict[str, Interval]:
    """Intervals of several statistics, with the same samples left out.

    Each covers what its `Statistic.answer` says: the population's value (trace, pair participation ratio, gradient
    signal, GSNR), or the expectation of the statistic over new draws of N samples (those of eigenvalues, which change
    with N); with `per_probe`, of the kernel without probe noise. Nominal 90% holds 85 to 95% at N = 32, 64 and 128 on
    power laws and spiked spectra, with even and uneven norms of samples, with 8 probes or without (analysis/coverage). On
    exactly flat spectra the first-order part of the error vanishes, the jackknife overstates the rest, and coverage is up
    to 99%.

    Args:
        names: Registered names (`STATISTICS`) or `Statistic` objects.
        matrix: K, [N, N], N ≥ 3. The order of the samples must be random where N > 128, since neighbours are then left
            out together.
        level: Nominal coverage in (0, 1).
        stderr: Standard error of entries over probes, [N, N]: corrects the pair statistic. Probes are held
            fixed.
        per_probe: Grams of R ≥ 3 independent probes, [R, N, N], of mean `matrix`. Values are then corrected for the
            bias by few probes, and every interval includes the variance over probes.

    Returns:
        name → Interval.

    Raises:
        InputError: bad matrices, unknown names, arguments out of range.

    Example:
        >>> gram = diagnosis.grams["trace"][0]
        >>> found = nd.spectra.subsample_intervals(["trace", "effective_rank"], gram)
        >>> found["trace"].low < found["trace"].value < found["trace"].high
        True
    """
    chosen = [statistic(name) for name in names]
    samples = len(gram_array(matrix))
    replicates = leave_out(chosen, matrix, stderr=stderr, per_probe=per_probe)
    return {
        one.name: interval_from_replicates(
            replicates[one.name],
            samples=samples,
            level=level,
            scale=one.scale,
            minimum=one.minimum,
            maximum=one.largest(samples),
            tail_factor=one.tail_factor,
        )
        for one in chosen
    }


def contrast_interval(
    name: str | Statistic,
    matrices: GramLike,
    contrast: Callable[[Array], Array],
    *,
    level: float = 0.9,
    scale: Scale = "linear",
    per_probe: GramLike | None = None,
) -> Interval:
    """Interval of a comparison between buckets on paired draws: a difference, a ratio, the slope of a trend.

    Nominal 90% of contrasts of logarithms between groups of buckets holds 86 to 95% (analysis/coverage).

    Args:
        name: Registered name or statistic.
        matrices: One Gram a bucket, of the same samples in the same order, [B, N, N].
        contrast: Maps statistics of the buckets [..., B] to a number [...]: for the log ratio of the first
            two, `lambda s: np.log(s[..., 0] / s[..., 1])`. The interval covers the contrast of what each
            bucket's own interval covers.
        level: As `subsample_intervals`.
        scale: Scale of the contrast on which its error is nearest to normal.
        per_probe: [B, R, N, N], R ≥ 3 probes shared by all buckets; removes the bias by their number, and adds the
            variance over them.

    Raises:
        InputError: as `subsample_intervals`.

    Example:
        >>> features = np.random.default_rng(0).normal(size=(2, 40, 5)) * np.array([1, 2])[:, None, None]
        >>> grams = features @ features.transpose(0, 2, 1)
        >>> found = nd.spectra.contrast_interval("trace", grams, lambda s: np.log(s[..., 1] / s[..., 0]))
        >>> bool(found.low < np.log(4) < found.high)
        True
    """
    samples = gram_array(matrices, "matrices", leading=("B",)).shape[-1]
    buckets = leave_out_in_buckets(name, matrices, per_probe=per_probe)
    return contrast_of_replicates(buckets, contrast, samples=samples, level=level, scale=scale)


def contrast_of_replicates(
    buckets: Sequence[Replicates],
    contrast: Callable[[Array], Array],
    *,
    samples: int,
    level: float = 0.9,
    scale: Scale = "linear",
) -> Interval:
    """`contrast_interval` of a statistic whose values without samples are known already.

    Args:
        buckets: The statistic in every bucket, without the same samples (and the same probes).
        contrast, level, scale: As in `contrast_interval`.
        samples: N.

    Example:
        >>> parts = [nd.spectra.Replicates(value, value + np.array([-0.1, 0.1, 0.2, -0.2])) for value in (2.0, 5.0)]
        >>> found = nd.spectra.contrast_of_replicates(parts, lambda s: s[..., 1] - s[..., 0], samples=4)
        >>> found.value, found.high - found.low < 1e-9  # the same samples move both
        (3.0, True)
    """
    probes = [bucket.without_probe for bucket in buckets if bucket.without_probe is not None]
    combined = Replicates(
        float(contrast(np.array([bucket.value for bucket in buckets]))),
        contrast(np.stack([bucket.without_samples for bucket in buckets], -1)),
        contrast(np.stack(probes, -1)) if probes else None,
    )
    return interval_from_replicates(combined, samples=samples, level=level, scale=scale)
