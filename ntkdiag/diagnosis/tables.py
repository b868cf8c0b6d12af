"""Tables of a diagnosis: statistics read off the kernels, a row a bucket, an eigenvalue or a pair of buckets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis.bayes import BayesTruth
from ntkdiag.diagnosis.kernels import Kernels
from ntkdiag.process import target as targets
from ntkdiag.process.buckets import Buckets
from ntkdiag.recoverability import (
    amplitude,
    gradient_cosine,
    learnability,
    median_half_life,
)
from ntkdiag.spectra import (
    eigenpairs,
    mean_interval,
    numerical_rank,
    rarefaction,
    subsample_interval,
    subsample_intervals,
    top_k_energy,
)
from ntkdiag.spectra.eigen import Array, Spectrum

STATISTICS = ("trace", "top_eigenvalue", "effective_rank", "participation_ratio", "participation_ratio_pairs",
              "stable_rank", "decay_exponent")  # fmt: skip
MIN_SAMPLES = 4  # below this no interval can be formed


class BucketViews:
    """The kernels of each bucket, cut out of the cross-bucket kernels."""

    def __init__(self, kernels: Kernels, buckets: int) -> None:
        trace, residual = kernels.trace.matrix.numpy(), kernels.residual.matrix.numpy()
        samples = trace.shape[0] // buckets
        parts = [slice(b * samples, (b + 1) * samples) for b in range(buckets)]
        per_probe = kernels.trace.per_probe
        self.trace: list[Array] = [trace[p, p] for p in parts]
        self.residual: list[Array] = [residual[p, p] for p in parts]
        self.per_probe: list[Array | None] = [
            None if per_probe is None or len(per_probe) < 3 else per_probe[:, p, p].numpy() for p in parts
        ]
        self.spectra: list[Spectrum] = [eigenpairs(k) for k in self.trace]


def learnability_scale(views: BucketViews) -> float:
    """κ: the median over buckets of the mean eigenvalue of K/N, one for all buckets."""
    return float(np.median([s.values.mean() for s in views.spectra]))


def summary_table(
    denoiser: Denoiser,
    kernels: Kernels,
    views: BucketViews,
    buckets: Buckets,
    truth: BayesTruth,
    kappa: float,
    seed: int,
) -> pd.DataFrame:
    """A row a bucket; columns as `Diagnosis.summary` describes."""
    log_snr = torch.tensor(buckets.centers, dtype=torch.float64)
    gain = targets.x0_gain(denoiser.target, denoiser.schedule, log_snr).square()
    reach = amplitude(denoiser.target, denoiser.schedule, log_snr)
    excess = truth.excess(kernels.predictions)
    rows = []
    for b in range(buckets.count):
        row: dict[str, float] = {
            "bucket": b,
            "log_snr": buckets.centers[b],
            "log_snr_low": buckets.edges[b],
            "log_snr_high": buckets.edges[b + 1],
            "samples": len(views.trace[b]),
        }
        row |= _loss(kernels.losses[b].numpy())
        row |= _spectral(views, b, seed)
        row["trace_x0"] = row["trace"] / float(gain[b])
        row["amplitude"] = float(reach[b])
        row |= {"bayes_share": float(truth.share[b]), "floor": float(truth.floor[b]), "excess": excess[b]}
        row |= _learning(kernels, views, b, kappa)
        row |= _gsnr(views.residual[b], seed)
        rows.append(row)
    return pd.DataFrame(rows).astype({"bucket": int, "samples": int, "numerical_rank": int})


def spectra_table(views: BucketViews, buckets: Buckets) -> pd.DataFrame:
    """A row an eigenvalue of K/N, descending within a bucket."""
    parts = [
        pd.DataFrame(
            {
                "bucket": b,
                "log_snr": buckets.centers[b],
                "index": np.arange(1, spectrum.samples + 1),
                "eigenvalue": spectrum.values,
                "share": spectrum.share,
            }
        )
        for b, spectrum in enumerate(views.spectra)
    ]
    return pd.concat(parts, ignore_index=True)


def coupling_table(kernels: Kernels, buckets: Buckets) -> pd.DataFrame:
    """A row a pair of buckets: cross kernel over the geometric mean of the two, and cosine of mean gradients."""
    count = buckets.count
    matrix = kernels.trace.matrix.numpy()
    samples = len(matrix) // count
    sums = matrix.reshape(count, samples, count, samples).sum((1, 3))
    own = np.sqrt(np.clip(np.diag(sums), 0, None))
    scale = np.outer(own, own)
    kernel = np.divide(sums, scale, out=np.full_like(sums, np.nan), where=scale > 0)
    cosine = (
        gradient_cosine(kernels.residual.matrix.numpy(), count) if samples > 1 else np.full_like(sums, np.nan)
    )
    centers = buckets.centers
    return pd.DataFrame(
        [
            (a, b, centers[a], centers[b], kernel[a, b], cosine[a, b])
            for a in range(count)
            for b in range(count)
        ],
        columns=["bucket_a", "bucket_b", "log_snr_a", "log_snr_b", "kernel", "gradient_cosine"],
    )


def rarefaction_table(views: BucketViews, buckets: Buckets, seed: int) -> pd.DataFrame:
    """Effective rank of subsets, by bucket and subset size; buckets share their subsets."""
    parts = []
    for b, matrix in enumerate(views.trace):
        curve = rarefaction(matrix, seed=seed)
        curve.insert(0, "bucket", b)
        curve.insert(1, "log_snr", buckets.centers[b])
        parts.append(curve)
    return pd.concat(parts, ignore_index=True)


def _loss(losses: Array) -> dict[str, float]:
    if len(losses) < 2:
        return {"loss": float(losses.mean()), "loss_low": np.nan, "loss_high": np.nan}
    found = mean_interval(losses)
    return {"loss": found.value, "loss_low": found.low, "loss_high": found.high}


def _spectral(views: BucketViews, b: int, seed: int) -> dict[str, float]:
    """Trace, eigenvalues and ranks; intervals for those that have one."""
    spectrum, row = views.spectra[b], {}
    if spectrum.samples >= MIN_SAMPLES:
        found = subsample_intervals(STATISTICS, views.trace[b], seed=seed, per_probe=views.per_probe[b])
        for name, one in found.items():
            row[name] = one.value
            if name in ("trace", "top_eigenvalue", "effective_rank", "participation_ratio_pairs"):
                row |= {f"{name}_low": one.low, f"{name}_high": one.high}
    else:
        row = _without_intervals(spectrum)
    row["numerical_rank"] = float(numerical_rank(spectrum.values))
    row["top8_energy"] = float(top_k_energy(spectrum.values, 8))
    row["negative_mass"] = spectrum.negative_mass
    return row


def _without_intervals(spectrum: Spectrum) -> dict[str, float]:
    """What a handful of samples still says."""
    from ntkdiag.spectra import effective_rank, participation_ratio, stable_rank

    e, nan = spectrum.values, float("nan")
    row = {
        "trace": float(e.sum()),
        "top_eigenvalue": float(e[0]),
        "effective_rank": float(effective_rank(e)),
        "participation_ratio": float(participation_ratio(e)),
        "participation_ratio_pairs": nan,
        "stable_rank": float(stable_rank(e)),
        "decay_exponent": nan,
    }
    for name in ("trace", "top_eigenvalue", "effective_rank", "participation_ratio_pairs"):
        row |= {f"{name}_low": nan, f"{name}_high": nan}
    return row


def _learning(kernels: Kernels, views: BucketViews, b: int, kappa: float) -> dict[str, float]:
    spectrum = views.spectra[b]
    assert spectrum.vectors is not None  # BucketViews asks for them
    wanted = kernels.wanted[b].numpy()
    residual = (kernels.predictions[b] - kernels.wanted[b]).numpy()
    nan = float("nan")
    return {
        "learnability": learnability(spectrum.values, spectrum.vectors, wanted, kappa) if kappa > 0 else nan,
        "half_life": median_half_life(spectrum.values, spectrum.vectors, residual),
    }


def _gsnr(residual_gram: Array, seed: int) -> dict[str, float]:
    if len(residual_gram) < MIN_SAMPLES:
        return {"gsnr": np.nan, "gsnr_low": np.nan, "gsnr_high": np.nan}
    found = subsample_interval("gsnr", residual_gram, seed=seed)
    return {"gsnr": found.value, "gsnr_low": found.low, "gsnr_high": found.high}
