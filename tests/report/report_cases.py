"""A made-up Diagnosis with the columns and the look of a real one, for figures and pages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch


def make_summary(log_snr: np.ndarray, strength: np.ndarray, oracle: bool, samples: int) -> pd.DataFrame:
    """Summary of a network whose rank and trace follow `strength` [B] in (0, 1]."""
    alpha2 = 1 / (1 + np.exp(-log_snr))
    half = np.diff(log_snr).mean() / 2 if len(log_snr) > 1 else 1.0
    rank = 1.6 + 18 * strength
    columns = {
        "bucket": np.arange(len(log_snr)),
        "log_snr": log_snr,
        "log_snr_low": log_snr - half,
        "log_snr_high": log_snr + half,
        "samples": samples,
        "participation_ratio": 0.7 * rank,
        "stable_rank": 0.3 * rank,
        "numerical_rank": np.minimum(samples, 3 * rank).astype(int),
        "top8_energy": 1 - 0.3 * strength,
        "decay_exponent": -1.6 + 0.5 * strength,
        "negative_mass": 0.0,
        "amplitude": np.sqrt(alpha2),
        "bayes_share": alpha2**0.7 if oracle else np.nan,
        "floor": 0.9 * (1 - alpha2) ** 1.4 + 1e-4 if oracle else np.nan,
        "learnability": 0.15 + 0.7 * strength**0.5,
        "half_life": 0.3 / strength,
        "trace_x0": 40 * strength,
    }
    measured = {
        "loss": 0.95 * (1 - alpha2) ** 1.3 + 0.004 + 0.03 * alpha2,
        "trace": 2 + 60 * strength,
        "top_eigenvalue": 1 + 14 * strength,
        "effective_rank": rank,
        "centred_effective_rank": 30 - 0.2 * rank,
        "shared_share": 0.95 - 0.4 * strength,
        "participation_ratio_pairs": 0.8 * rank,
        "gsnr": 0.02 + 0.4 * strength**2,
    }
    for name, values in measured.items():
        wide = 0.07 * values
        columns |= {name: values, f"{name}_low": values - wide, f"{name}_high": values + 1.2 * wide}
    table = pd.DataFrame(columns)
    table["excess"] = table["loss"] - table["floor"]
    return table


def make_full(log_snr: np.ndarray, strength: np.ndarray, samples: int, count: int = 5) -> SimpleNamespace:
    """A full kernel of 1×8×8 images whose top eigenfunctions are waves."""
    summary, spectra, density, contraction = [], [], [], []
    index = np.arange(1, count + 1)
    times = np.logspace(-2, 4, 31)
    for b, (level, strong) in enumerate(zip(log_snr, strength, strict=True)):
        place = {"bucket": b, "log_snr": level}
        row: dict[str, Any] = {"top_eigenvalue": 1 + 9 * strong, "converged": True, "products": 300}
        for name, value in {
            "trace": 30 * strong,
            "participation_ratio": 8.0,
            "effective_rank": 20 + 200 * strong,
        }.items():
            row |= {name: value, f"{name}_low": 0.9 * value, f"{name}_high": 1.1 * value}
        summary.append({**place, **row, "stable_rank": 3.0, "method": "forward mode"})
        values = row["top_eigenvalue"] / index
        aligned = {"target_alignment": 0.4 * strong / index, "residual_alignment": 0.1 / index}
        spectra.append(
            pd.DataFrame(
                {
                    **place,
                    "index": index,
                    "eigenvalue": values,
                    "residual": 1e-5,
                    **aligned,
                    "data_share": 0.5,
                }
            )
        )
        grid = np.linspace(np.log(values[0]) - 16, np.log(values[0]) + 1, 41)
        height = 200 * np.exp(-((grid + 6) ** 2) / 8)
        bands = {"density": height, "low": 0.8 * height, "high": 1.2 * height}
        density.append(pd.DataFrame({**place, "log_eigenvalue": grid, **bands}))
        left = 0.7 + 0.3 * np.exp(-times)
        contraction.append(
            pd.DataFrame({**place, "time": times / values[0], "low": left - 0.1, "high": left})
        )
    pixel = torch.arange(8.0)
    waves = torch.stack([torch.cos(k * pixel[:, None] / 3) * torch.cos(pixel / 2) for k in range(count)])
    size = torch.linspace(0.5, 1.5, samples)[:, None, None, None]
    functions = (waves[:, None, None] * size).expand(len(log_snr), -1, -1, -1, -1, -1)
    return SimpleNamespace(
        summary=pd.DataFrame(summary),
        spectra=pd.concat(spectra, ignore_index=True),
        density=pd.concat(density, ignore_index=True),
        contraction=pd.concat(contraction, ignore_index=True),
        eigenfunctions=functions,
    )


def make_grams(strength: np.ndarray, samples: int) -> dict[str, torch.Tensor]:
    """Trace kernels [B, N, N] of Gaussian features of three classes, flatter where the network is stronger, and labels."""
    generator = np.random.default_rng(3)
    labels = np.arange(samples) % 3
    features = generator.standard_normal((samples, 20)) + 0.8 * generator.standard_normal((3, 20))[labels]
    features[:, 0] += 1.5
    powers = np.arange(1, 21) ** (-1.5 * (1 - strength[:, None]))
    phi = features * powers[:, None]
    return {"trace": torch.from_numpy(phi @ phi.swapaxes(1, 2)), "labels": torch.from_numpy(labels)}


def make_diagnosis(
    buckets: int = 10,
    oracle: bool = True,
    untrained: bool = True,
    samples: int = 48,
    seed: int = 0,
    full: bool = True,
) -> SimpleNamespace:
    """An x0 network that degrades towards high noise, measured beside its untrained self."""
    log_snr = np.linspace(-9, 9, buckets) if buckets > 1 else np.zeros(1)
    generator = np.random.default_rng(seed)
    strength = 1 / (1 + np.exp(-(log_snr + 1) / 2.5)) * (0.92 + 0.08 * generator.random(buckets))
    summary = make_summary(log_snr, strength, oracle, samples)
    index = np.arange(1, samples + 1)
    spectra, rarefaction = [], []
    for row in summary.itertuples():
        decay = 0.7 + 1.6 * (1 - strength[row.bucket])
        values = index**-decay * np.exp(-index / 18) * np.exp(0.06 * generator.standard_normal(samples))
        values = np.sort(values)[::-1] / values.sum() * row.trace
        spectra.append(
            pd.DataFrame(
                {
                    "bucket": row.bucket,
                    "log_snr": row.log_snr,
                    "index": index,
                    "eigenvalue": values,
                    "share": values / values.sum(),
                }
            )
        )
        count = np.unique(np.geomspace(4, samples, 6).astype(int))
        rank = row.effective_rank * (1 - np.exp(-count / row.effective_rank))
        rarefaction.append(
            pd.DataFrame(
                {
                    "bucket": row.bucket,
                    "log_snr": row.log_snr,
                    "samples": count,
                    "effective_rank": rank,
                    "effective_rank_std": 0.05 * rank,
                }
            )
        )
    a, b = np.meshgrid(np.arange(buckets), np.arange(buckets), indexing="ij")
    distance = np.abs(log_snr[a] - log_snr[b])
    coupling = pd.DataFrame(
        {
            "bucket_a": a.ravel(),
            "bucket_b": b.ravel(),
            "log_snr_a": log_snr[a].ravel(),
            "log_snr_b": log_snr[b].ravel(),
            "kernel": np.exp(-distance / 6).ravel(),
            "gradient_cosine": (np.exp(-distance / 5) - 0.28 * (distance > 9)).ravel(),
        }
    )
    coupling["gradient_cosine_low"] = coupling["gradient_cosine"] - 0.06
    coupling["gradient_cosine_high"] = coupling["gradient_cosine"] + 0.04
    refs = {}
    if untrained:
        control = make_summary(log_snr, 0.12 + 0.02 * generator.random(buckets), oracle, samples)
        control[["loss", "loss_low", "loss_high"]] = [1.02, 0.97, 1.06]
        refs["untrained"] = SimpleNamespace(
            summary=control,
            spectra=spectra[0],
            coupling=coupling,
            rarefaction=rarefaction[0],
            meta={},
            refs={},
            full=make_full(log_snr, 0.5 * strength, samples) if full else None,
        )
    return SimpleNamespace(
        summary=summary,
        spectra=pd.concat(spectra, ignore_index=True),
        coupling=coupling,
        rarefaction=pd.concat(rarefaction, ignore_index=True),
        grams=make_grams(strength, samples),
        meta=make_meta(buckets, samples, oracle),
        refs=refs,
        full=make_full(log_snr, strength, samples) if full else None,
    )


def make_meta(buckets: int, samples: int, oracle: bool) -> dict[str, Any]:
    return {
        "environment": {"ntkdiag": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "device": "cpu (x86_64)"},
        "config": {
            "buckets": {"edges": list(range(buckets + 1)), "centers": list(range(buckets))},
            "samples": samples,
            "seed": 1234,
            "probes": 8,
            "kernel": "trace",
            "target": "x0",
            "schedule": {"name": "cosine"},
        },
        "data": {"name": "digits", "digest": "9f2c" * 16, "shape": [1, 8, 8]},
        "network": {"name": "digits-dit", "class": "DiT", "parameters": 213504},
        "bayes_source": "mixture: exact posterior of the mixture"
        if oracle
        else "linear lower bound of the share",
        "engine": "streaming",
        "coverage": {
            "blocks.0.attention.qkv": "linear",
            "blocks.0.mlp.0": "linear",
            "final.scale": "torch.func",
        },
        "seconds": 12.3,
    }


def make_verdicts() -> SimpleNamespace:
    """What the page reads of a `Verification`."""
    rows = [
        (
            "C1",
            "The kernel weakens where the target is less recoverable.",
            "falls",
            "falls",
            "Trace: ×0.41 [0.30, 0.55].",
        ),
        (
            "C2",
            "The effective rank falls where the target is less recoverable.",
            "falls",
            "cannot say",
            "×0.17.",
        ),
        (
            "C3",
            "Degradation follows recoverability.",
            "not testable",
            "not testable",
            "One network cannot tell.",
        ),
    ]
    answers = pd.DataFrame(rows, columns=["claim", "statement", "noisy", "clean", "text"])
    method = "max-t over 18 effects: 90% together"
    said = "In this network the kernel collapses at the noisy end."
    return SimpleNamespace(text=said, answers=answers, method=method)


def make_runs(log_snr: np.ndarray, seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    runs = {}
    for name, gain in {"constant": 0.0, "erd": 0.18, "min_snr": 0.07}.items():
        loss = (1 / (1 + np.exp(log_snr))) * np.exp(-gain * np.tanh(log_snr / 4)) + 0.004
        step = np.arange(0, 4000, 40)
        noise = np.exp(0.12 * generator.standard_normal(len(step)))
        runs[name] = {
            "history": pd.DataFrame(
                {"step": step, "loss": (0.08 + 0.9 * np.exp(-step / 500) - 0.1 * gain) * noise}
            ),
            "buckets": pd.DataFrame(
                {
                    "bucket": np.arange(len(log_snr)),
                    "log_snr": log_snr,
                    "loss": loss,
                    "loss_low": 0.97 * loss,
                    "loss_high": 1.03 * loss,
                }
            ),
        }
    return runs


def make_trust() -> SimpleNamespace:
    """What the page reads of an examined training run."""
    levels, steps = (-6.0, 0.0, 6.0), (0, 100, 200)
    drift = [
        {
            "step": step,
            "bucket": b,
            "log_snr": one,
            "alignment": 0.4 + step / 400,
            "top_overlap": 0.5,
            "trace": 2.0,
        }
        | {"effective_rank": 9.0 - step / 40 - b, "centred_effective_rank": 8.0, "shared_share": 0.2}
        for step in steps
        for b, one in enumerate(levels)
    ]
    along = [
        {"repeat": 0, "step": step, "bucket": b, "log_snr": one, "error": 0.02 * step, "true_change": -0.1}
        | {"predicted_change": -0.11}
        for step in (1, 2, 4)
        for b, one in enumerate(levels)
    ]
    features = [
        {"network": network, "module": module, "bucket": b, "log_snr": one, "centred_effective_rank": 5.0 + b}
        for network, module in (("trained", "blocks.0"), ("untrained", "blocks.0"), ("input", ""))
        for b, one in enumerate(levels)
    ]
    outputs = [
        {"bucket": b, "log_snr": one, "output_rank": 3.0, "best_rank": 4.0, "data_rank": 6.0}
        for b, one in enumerate(levels)
    ]
    named = {"drift": drift, "linearity_steps": along, "features": features, "outputs": outputs}
    tables = {name: pd.DataFrame(rows) for name, rows in named.items()}
    said = {
        "linearity": "This kernel describes about the next 4 steps.",
        "drift": "The rank at the noisy end falls from step 100 on.",
        "features": "At the noisy end 1 of 2 modules loses rank.",
        "outputs": "At the noisy end the network has less.",
    }
    return _Examined(tables=tables, said=said)


class _Examined(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.tables)


def make_quality() -> pd.DataFrame:
    rows = [
        (run, metric, value, 0.93 * value, 1.08 * value)
        for metric, values in {
            "FD-digits (lower is better)": (14.2, 11.1, 12.9),
            "coverage": (0.82, 0.9, 0.86),
        }.items()
        for run, value in zip(("constant", "erd", "min_snr"), values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["run", "metric", "value", "low", "high"])


def make_images(seed: int = 0) -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    real = load_digits().images[:64, None].astype(np.float32) / 8 - 1
    noise = np.random.default_rng(seed).standard_normal((2, *real.shape))
    return {"constant": real + 0.5 * noise[0], "erd": real + 0.25 * noise[1], "data": real}


def make_points(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    angle = 2 * np.pi * generator.integers(0, 8, (3, 800)) / 8
    centre = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    spread = np.array([0.08, 0.2, 0.12])[:, None, None]
    points = centre + spread * generator.standard_normal(centre.shape)
    return dict(zip(("data", "constant", "erd"), points, strict=True))
