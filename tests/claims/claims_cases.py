"""Diagnoses with planted effects: kernels of Gaussian features whose spectrum is known in every bucket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ntkdiag.diagnosis import Diagnosis
from ntkdiag.diagnosis.controls import control_name
from ntkdiag.process import schedules
from ntkdiag.recoverability import amplitude

Array = np.ndarray


def levels(buckets: int = 10) -> Array:
    """Bucket centres from −9 to 9."""
    return np.linspace(-9, 9, buckets)


def reach(target: str, log_snr: Array) -> Array:
    """R_y."""
    return amplitude(target, schedules.cosine(), torch.from_numpy(log_snr)).numpy()


def simulate(
    target: str = "v",
    *,
    log_snr: Array | None = None,
    controls: Sequence[Diagnosis] = (),
    zero_start: Sequence[str] = (),
    **planted: Any,
) -> Diagnosis:
    """A diagnosis with the kernels of `kernels`.

    Args:
        target: Decides R_y.
        log_snr: Bucket centres [B].
        controls: Simulations on the same draws.
        zero_start: Weights of a zero last layer.
        planted: Arguments of `kernels`.
    """
    centres = levels() if log_snr is None else log_snr
    trace, per_probe = kernels(centres, **planted)
    count, samples = trace.shape[:2]
    half = float(np.diff(centres).min()) / 2
    grams = {"trace": torch.from_numpy(trace), "residual": _residual(count, samples)}
    grams["losses"] = torch.from_numpy(np.random.default_rng(5).exponential(1.0, (count, samples)))
    if per_probe.shape[1]:
        grams["per_probe"] = torch.from_numpy(per_probe)
    summary = pd.DataFrame(
        {
            "log_snr": centres,
            "log_snr_low": centres - half,
            "log_snr_high": centres + half,
            "amplitude": reach(target, centres),
            "bayes_share": 1 / (1 + np.exp(-centres / 2)),
            "excess": np.full(count, 0.1),
            "floor": 1 / (1 + np.exp(centres / 2)),
            "input_effective_rank": np.linspace(20, 10, count),
            "contamination": np.linspace(0.9, 0.1, count),
            "contamination_low": np.linspace(0.8, 0.05, count),
            "contamination_high": np.linspace(1.0, 0.2, count),
        }
    )
    empty = pd.DataFrame()
    meta = {
        "config": {"target": target, "schedule": {"name": "cosine"}},
        "network": {"zero_start": list(zero_start)},
    }
    references = {control_name(place): one for place, one in enumerate(controls)}
    return Diagnosis(summary, empty, empty, empty, grams, meta, references)


def _residual(buckets: int, samples: int) -> torch.Tensor:
    """Gradient energies that differ between samples and buckets, on the diagonal."""
    energies = (
        np.random.default_rng(6).exponential(1.0, (buckets, samples)) * np.linspace(3, 1, buckets)[:, None]
    )
    return torch.diag(torch.from_numpy(energies.ravel()))


def kernels(
    log_snr: Array,
    *,
    size: Array | float = 1.0,
    flatness: Array | float = 0.7,
    samples: int = 32,
    features: int = 24,
    shared: float = 0.5,
    mean: Array | float = 0.0,
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
        mean: What all samples share, added to the first feature, in units of the square root of `size`; one number
            or one a bucket.
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
    rows[..., 0] += (mean * np.sqrt(np.broadcast_to(size, count)))[:, None]
    if not probes:
        return rows @ rows.swapaxes(1, 2), np.empty((count, 0, samples, samples))
    noise = np.random.default_rng([12, probe_seed]).standard_normal((probes, 1, 1, features))
    scaled = rows * (1 + probe_noise * noise)
    per_probe = (scaled @ scaled.swapaxes(2, 3)).transpose(1, 0, 2, 3).copy()
    return per_probe.mean(1), per_probe
