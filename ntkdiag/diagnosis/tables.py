"""Tables of a diagnosis: statistics of the kernels, one row per bucket, per eigenvalue or per pair of buckets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis.bayes import BayesTruth
from ntkdiag.diagnosis.bucket_kernels import Kernels
from ntkdiag.process import target as targets
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.recoverability import (
    amplitude,
    contamination,
    gradient_cosines,
    gradient_gain,
    learnability,
    median_half_life,
)
from ntkdiag.spectra import (
    Interval,
    eigenpairs,
    evaluate,
    mean_interval,
    numerical_rank,
    rarefaction,
    subsample_interval,
    subsample_intervals,
    top_k_energy,
)
from ntkdiag.spectra.dense.eigen import Array, Spectrum

STATISTICS = (
    "trace",
    "top_eigenvalue",
    "effective_rank",
    "participation_ratio_pairs",
    "participation_ratio",
    "stable_rank",
    "decay_exponent",
    "shared_share",
    "centred_trace",
    "centred_top_eigenvalue",
    "centred_effective_rank",
    "centred_participation_ratio_pairs",
)
MIN_SAMPLES = 4  # below this no interval can be formed


class BucketViews:
    """The kernels of each bucket, as blocks of the kernels over all buckets."""

    def __init__(self, kernels: Kernels, buckets: int) -> None:
        residual = kernels.residual.matrix.numpy()
        samples = residual.shape[0] // buckets
        parts = [slice(b * samples, (b + 1) * samples) for b in range(buckets)]
        by_probe = [gram.per_probe for gram in kernels.trace]
        self.trace: list[Array] = [gram.matrix.numpy() for gram in kernels.trace]
        self.residual: list[Array] = [residual[p, p] for p in parts]
        self.per_probe: list[Array | None] = [
            None if probes is None or len(probes) < 3 else probes.numpy() for probes in by_probe
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
    noise_energy: dict[str, torch.Tensor | None],
    kappa: float,
    draws: PairedDraws,
) -> pd.DataFrame:
    """One row per bucket; columns as `Diagnosis` describes them.

    `noise_energy` is the gradient energy of each sample's Bayes noise, [B, N], by the name of the column that it is for;
    None where that posterior is not known.
    """
    log_snr = torch.tensor(buckets.centers, dtype=torch.float64)
    gain = targets.x0_gain(denoiser.target, denoiser.schedule, log_snr).square()
    reach = amplitude(denoiser.target, denoiser.schedule, log_snr)
    excess = truth.excess(kernels.predictions)
    inputs = input_grams(denoiser, draws, log_snr)
    rows = []
    outside = buckets.outside(denoiser.schedule)
    gains = _gains(kernels, buckets.mass(denoiser.schedule))
    for b in range(buckets.count):
        row: dict[str, float] = {
            "bucket": b,
            "log_snr": buckets.centers[b],
            "log_snr_low": buckets.edges[b],
            "log_snr_high": buckets.edges[b + 1],
            "extrapolated": outside[b],
            "samples": len(views.trace[b]),
        }
        row |= _loss(kernels.losses[b].numpy())
        row |= _spectral(views, b)
        row["input_effective_rank"] = float(evaluate("effective_rank", inputs[b]))
        row["trace_x0"] = row["trace"] / float(gain[b])
        row["amplitude"] = float(reach[b])
        row |= {"bayes_share": float(truth.share[b]), "bayes_share_estimate": float(truth.estimate[b])}
        row |= {"floor": float(truth.floor[b]), "excess": excess[b]}
        row |= _learning(kernels, views, b, kappa)
        row |= _gsnr(views.residual[b])
        row |= {name: values[b] for name, values in gains.items()}
        for name, energy in noise_energy.items():
            row |= _contamination(name, None if energy is None else energy[b].numpy(), views.residual[b])
        rows.append(row)
    return pd.DataFrame(rows).astype({"bucket": int, "samples": int, "numerical_rank": int})


def input_grams(denoiser: Denoiser, draws: PairedDraws, log_snr: torch.Tensor) -> Array:
    """Gram matrices of the noisy inputs x = α x0 + σ ε themselves, [B, N, N].

    An untrained network's rank follows theirs: it belongs to the inputs, not to what was learned.
    """
    clean, noise = draws.x0.double().cpu().flatten(1), draws.epsilon.double().cpu().flatten(1)
    crossed = clean @ noise.T
    parts = torch.stack([clean @ clean.T, crossed + crossed.T, noise @ noise.T])
    alpha, sigma = denoiser.schedule.alpha(log_snr), denoiser.schedule.sigma(log_snr)
    largest = torch.maximum(alpha, sigma)  # a VE schedule's σ may be huge; ranks do not depend on the scale
    alpha, sigma = alpha / largest, sigma / largest
    weights = torch.stack([alpha.square(), alpha * sigma, sigma.square()], 1)
    grams: Array = torch.einsum("bk,kij->bij", weights, parts).numpy()
    return grams


def spectra_table(views: BucketViews, buckets: Buckets) -> pd.DataFrame:
    """One row per eigenvalue of K/N, descending within a bucket."""
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
    """One row per pair of buckets: cross kernel over the geometric mean of the two, and cosine of mean gradients."""
    count = buckets.count
    samples, sums = kernels.residual.matrix.shape[0] // count, kernels.cross.numpy()
    own = np.sqrt(np.clip(np.diag(sums), 0, None))
    scale = np.outer(own, own)
    kernel = np.divide(sums, scale, out=np.full_like(sums, np.nan), where=scale > 0)
    cosines = gradient_cosines(kernels.residual.matrix.numpy(), count) if samples > 1 else None
    centers = buckets.centers
    rows = []
    for a in range(count):
        for b in range(count):
            row = {"bucket_a": a, "bucket_b": b, "log_snr_a": centers[a], "log_snr_b": centers[b]}
            row["kernel"] = kernel[a, b]
            for end, part in (("", "value"), ("_low", "low"), ("_high", "high")):
                row[f"gradient_cosine{end}"] = np.nan if cosines is None else getattr(cosines, part)[a, b]
            rows.append(row)
    return pd.DataFrame(rows)


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
    found = mean_interval(losses) if len(losses) > 1 else None
    return _with_ends("loss", float(losses.mean()), found)


def _spectral(views: BucketViews, b: int) -> dict[str, float]:
    """Trace, eigenvalues and ranks, with intervals; corrected for the bias by few probes."""
    spectrum, matrix = views.spectra[b], views.trace[b]
    found: dict[str, Interval] = {}
    if spectrum.samples >= MIN_SAMPLES:
        found = subsample_intervals(STATISTICS, matrix, per_probe=views.per_probe[b])
    row: dict[str, float] = {}
    for name in STATISTICS:
        value = found[name].value if found else _value(name, matrix)
        row |= _with_ends(name, value, found.get(name))
    row["numerical_rank"] = numerical_rank(spectrum)
    row["top8_energy"] = top_k_energy(spectrum, 8)
    row["negative_mass"] = spectrum.negative_mass
    return row


def _value(name: str, matrix: Array) -> float:
    """A statistic of all samples; NaN where one sample has no centred kernel."""
    return float(evaluate(name, matrix)) if len(matrix) > 1 or "centred" not in name else float("nan")


def _learning(kernels: Kernels, views: BucketViews, b: int, kappa: float) -> dict[str, float]:
    spectrum = views.spectra[b]
    assert spectrum.vectors is not None  # BucketViews computes them
    wanted = kernels.wanted[b].numpy()
    residual = (kernels.predictions[b] - kernels.wanted[b]).numpy()
    nan = float("nan")
    return {
        "learnability": learnability(spectrum.values, spectrum.vectors, wanted, kappa) if kappa > 0 else nan,
        "half_life": median_half_life(spectrum.values, spectrum.vectors, residual),
    }


def _gsnr(residual_gram: Array) -> dict[str, float]:
    if len(residual_gram) < 2:
        return _with_ends("gsnr", np.nan, None)
    enough = len(residual_gram) >= MIN_SAMPLES
    found = subsample_interval("gsnr", residual_gram) if enough else None
    return _with_ends("gsnr", float(evaluate("gsnr", residual_gram)), found)


def _gains(kernels: Kernels, mass: tuple[float, ...]) -> dict[str, Array]:
    """Gain of every bucket with its ends; NaN where there is one sample, or none of the buckets is trained."""
    matrix = kernels.residual.matrix.numpy()
    if len(matrix) < 2 * len(mass) or not sum(mass) > 0:
        return dict.fromkeys(("gain", "gain_low", "gain_high"), np.full(len(mass), np.nan))
    found = gradient_gain(matrix, mass)
    return {"gain": found.value, "gain_low": found.low, "gain_high": found.high}


def _with_ends(name: str, value: float, interval: Interval | None) -> dict[str, float]:
    """A value with the ends of its interval; NaN ends where too few samples allow none."""
    low, high = (np.nan, np.nan) if interval is None else (interval.low, interval.high)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _contamination(name: str, noise_energy: Array | None, residual_gram: Array) -> dict[str, float]:
    if noise_energy is None:
        return _with_ends(name, np.nan, None)
    found = contamination(noise_energy, np.diag(residual_gram))
    return _with_ends(name, found.value, found)
