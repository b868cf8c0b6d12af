"""Symmetric matrices with prescribed spectra, and the spectra that operators are tried on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SIZE = 60

SPECTRA: dict[str, np.ndarray] = {
    "flat": np.ones(SIZE),
    "power law": np.arange(1, SIZE + 1.0) ** -1.0,
    "low rank plus noise": np.r_[np.linspace(10, 5, 6), np.full(SIZE - 6, 1e-3)],
    "clustered": np.r_[np.full(10, 5.0), np.ones(SIZE - 10)],
    "rank deficient": np.r_[np.arange(8, 0, -1.0), np.zeros(SIZE - 8)],
    "rank one": np.r_[1.0, np.zeros(SIZE - 1)],
    "zero": np.zeros(SIZE),
}


def matrix(eigenvalues: np.ndarray, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    full = (basis * torch.from_numpy(eigenvalues)) @ basis.T
    return ((full + full.T) / 2).to(dtype)
