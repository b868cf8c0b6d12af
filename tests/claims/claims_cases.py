"""Diagnoses with planted effects: kernels of Gaussian features whose spectrum is known in every bucket."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from ntkdiag.process import schedules
from ntkdiag.recoverability import amplitude

Array = np.ndarray


def levels(buckets: int = 10) -> Array:
    """Bucket centres from −9 to 9: the thirds of a v target lie at the middle and at both ends."""
    return np.linspace(-9, 9, buckets)


def reach(target: str, log_snr: Array) -> Array:
    """R_y."""
    return amplitude(target, schedules.cosine(), torch.from_numpy(log_snr)).numpy()


def simulate(
    target: str = "v",
    *,
    size: Array | float = 1.0,
    flatness: Array | float = 0.7,
    log_snr: Array | None = None,
    samples: int = 32,
    features: int = 24,
    shared: float = 0.5,
    probes: int = 0,
    seed: int = 0,
    control: Any = None,
) -> Any:
    """What `judge` reads of a diagnosis.

    Args:
        target: Decides R_y.
        size: Trace of the kernel, one number or one a bucket [B].
        flatness: Eigenvalues are flatness^k, k = 0 … features − 1, scaled to `size`; higher means a higher rank.
        log_snr: Bucket centres [B].
        samples: N.
        features: Number of features.
        shared: Share of the features' variance that buckets have in common, as paired draws give.
        probes: Kernels by probe, each the kernel with a multiplicative error of 10% per feature; 0 for an exact one.
        seed: Of everything.
        control: Measured on the same draws; another simulation.
    """
    log_snr = levels() if log_snr is None else log_snr
    buckets = len(log_snr)
    generator = np.random.default_rng(seed)
    common = generator.standard_normal((samples, features))
    own = generator.standard_normal((buckets, samples, features))
    spectrum = np.power(np.broadcast_to(flatness, buckets)[:, None], np.arange(features))
    spectrum = spectrum / spectrum.sum(1, keepdims=True) * np.broadcast_to(size, buckets)[:, None]
    rows = (np.sqrt(shared) * common + np.sqrt(1 - shared) * own) * np.sqrt(spectrum)[:, None]
    grams = {"trace": torch.from_numpy(rows @ rows.swapaxes(1, 2))}
    if probes:
        errors = 1 + 0.1 * generator.standard_normal((probes, buckets, 1, features))
        scaled = rows * errors
        per_probe = torch.from_numpy(scaled @ scaled.swapaxes(2, 3)).transpose(0, 1)
        grams = {"trace": per_probe.mean(1), "per_probe": per_probe.contiguous()}
    return SimpleNamespace(
        summary=pd.DataFrame({"log_snr": log_snr, "amplitude": reach(target, log_snr)}),
        grams=grams,
        meta={"config": {"target": target}},
        refs={} if control is None else {"untrained": control},
    )


def along(ordering: Array, low: float, high: float) -> Array:
    """A quantity that rises with an ordering from `low` to `high`."""
    share = (ordering - ordering.min()) / np.ptp(ordering)
    return low + share * (high - low)


def kernels(
    log_snr: Array,
    *,
    size: Array | float = 1.0,
    flatness: Array | float = 0.7,
    samples: int = 32,
    features: int = 24,
    shared: float = 0.5,
    mean: float = 0.0,
    norms: float = 0.0,
    probes: int = 0,
    probe_noise: float = 0.1,
    seed: int = 0,
    probe_seed: int = 0,
) -> tuple[Array, Array]:
    """Kernels of Gaussian features, one a bucket, and the same by probe.

    Args:
        log_snr: Bucket centres [B].
        size: Trace of the population's kernel without its mean, one number or one a bucket [B].
        flatness: Eigenvalues are flatness^k, k = 0 … features − 1, scaled to `size`.
        samples, features: N, and number of features.
        shared: Share of the features' variance that buckets have in common.
        mean: What all samples share, added to the first feature, in units of the square root of `size`.
        norms: Samples are multiplied by exp(norms · z), z standard normal.
        probes: R; each probe multiplies every feature by 1 + noise. 0: the second result is empty.
        probe_noise: Standard deviation of that noise.
        seed, probe_seed: Of samples, and of probes.

    Returns:
        [B, N, N] and [B, R, N, N].
    """
    count = len(log_snr)
    generator = np.random.default_rng([11, seed])
    common = generator.standard_normal((samples, features))
    own = generator.standard_normal((count, samples, features))
    factor = np.exp(norms * generator.standard_normal((samples, 1)))
    spectrum = np.power(np.broadcast_to(flatness, count)[:, None], np.arange(features))
    spectrum = spectrum / spectrum.sum(1, keepdims=True) * np.broadcast_to(size, count)[:, None]
    rows = (np.sqrt(shared) * common + np.sqrt(1 - shared) * own) * np.sqrt(spectrum)[:, None] * factor
    rows[..., 0] += mean * np.sqrt(np.broadcast_to(size, count))[:, None]
    if not probes:
        return rows @ rows.swapaxes(1, 2), np.empty((count, 0, samples, samples))
    noise = np.random.default_rng([12, probe_seed]).standard_normal((probes, 1, 1, features))
    scaled = rows * (1 + probe_noise * noise)
    per_probe = (scaled @ scaled.swapaxes(2, 3)).transpose(1, 0, 2, 3).copy()
    return per_probe.mean(1), per_probe
