"""Kernels whose true statistics are known: Gaussian features with a prescribed spectrum, uneven norms and probe noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ntkdiag.spectra import STATISTICS
from ntkdiag.spectra.dense.named_statistics import evaluate_all

Array = NDArray[np.float64]

MODES = np.arange(1, 51)
# Eigenvalues of the kernel's population.
SPECTRA = {
    "1/k": MODES**-1.0,
    "1/k²": MODES**-2.0,
    "spiked": np.append(20.0, np.ones(100)),
    "flat, 16": np.ones(16),
    "flat, 100": np.ones(100),
    "low rank": np.array([1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
}
# Norms of samples: "heavy" multiplies each sample's features by exp(z/2), z standard normal, so that its kernel with itself
# is lognormal with σ = 1. Mean of the square of the factor:
SQUARES = {"light": 1.0, "heavy": float(np.exp(0.5))}
KERNEL = [
    "trace",
    "top_eigenvalue",
    "effective_rank",
    "participation_ratio",
    "participation_ratio_pairs",
    "stable_rank",
    "decay_exponent",
]


def norms(kind: str, samples: int, rng: np.random.Generator) -> Array:
    """Factors of the samples' features, [N, 1]."""
    size = 0.5 if kind == "heavy" else 0.0
    return np.exp(size * rng.standard_normal((samples, 1)))


def features(spectrum: str, kind: str, samples: int, rng: np.random.Generator) -> Array:
    """[N, modes]."""
    law = SPECTRA[spectrum]
    return rng.standard_normal((samples, len(law))) * np.sqrt(law) * norms(kind, samples, rng)


def gram(phi: Array) -> Array:
    return phi @ phi.T


def probed(phi: Array, weights: Array) -> Array:
    """Kernels of single probes that multiply each mode by a weight, [R, modes] → [R, N, N]."""
    return np.einsum("nk,rk,mk->rnm", phi, weights, phi, optimize=True)


def probe_weights(outputs: int, probes: int, modes: int, rng: np.random.Generator) -> Array:
    """A mode carried by m groups of outputs: each probe reads it times the mean of m squared normals, [R, modes]."""
    return rng.chisquare(outputs, (probes, modes)) / outputs


def truths(spectrum: str, kind: str, samples: int, draws: int) -> dict[str, float]:
    """Values of the population in closed form, and expectations at N without probe noise from fresh draws."""
    law = SPECTRA[spectrum]
    rng = np.random.default_rng([99, samples])
    expected = [name for name in KERNEL if STATISTICS[name].answer == "expectation at N"]
    parts = []
    for _ in range(-(-draws // 100)):
        grams = np.stack([gram(features(spectrum, kind, samples, rng)) for _ in range(100)])
        parts.append(evaluate_all(expected, grams))
    found = {name: float(np.mean([part[name].mean() for part in parts])) for name in expected}
    return found | {
        "trace": SQUARES[kind] * float(law.sum()),
        "participation_ratio_pairs": float(law.sum() ** 2 / np.square(law).sum()),
    }
