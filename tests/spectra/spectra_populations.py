"""Feature populations with known spectra, and slow definitions of the statistics to hold the package to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy

Array = NDArray[np.float64]

# Gaussian features N(0, diag(spectrum)), so that the kernel's population eigenvalues are the spectrum.
LOW_RANK = np.array([1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
POWER_LAW = np.arange(1, 51) ** -1.0
FLAT_AND_SPIKE = np.append(20.0, np.ones(100))
POPULATIONS = {"low rank": LOW_RANK, "power law": POWER_LAW, "flat and spike": FLAT_AND_SPIKE}

# k^-a over 50 dimensions, a solved so that (Σλ)²/Σλ² = 12.5
REFERENCE = np.arange(1, 51) ** -0.99850553


def features(spectrum: Array, count: int, rng: np.random.Generator) -> Array:
    return rng.standard_normal((count, len(spectrum))) * np.sqrt(spectrum)


def gram(spectrum: Array, count: int, rng: np.random.Generator) -> Array:
    phi = features(spectrum, count, rng)
    return phi @ phi.T


def with_spectrum(values: Array, rng: np.random.Generator) -> Array:
    """A matrix K whose K/N has exactly these eigenvalues, in a random basis."""
    basis, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    matrix = len(values) * (basis * values) @ basis.T
    return (matrix + matrix.T) / 2


def slow_statistics(phi: Array) -> dict[str, float]:
    """From features, by singular values and library routines: no code in common with the package."""
    values = np.linalg.svd(phi, compute_uv=False) ** 2 / len(phi)
    slope, _ = np.polyfit(np.log(np.arange(1, 9)), np.log(values[:8]), 1)
    return {
        "top_eigenvalue": values[0],
        "effective_rank": np.exp(entropy(values / values.sum())),
        "decay_exponent": -slope,
    }


def slow_pairs(matrix: Array) -> float:
    """The pair participation ratio by its definition."""
    above = below = 0.0
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            if i != j:
                above += matrix[i, i] * matrix[j, j]
                below += matrix[i, j] ** 2
    return above / below
