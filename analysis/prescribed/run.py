"""Do the error bounds of operators' spectra hold? Symmetric matrices with prescribed spectra, over seeds; see README.md.

python -m analysis.prescribed.run [--size full|tiny] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.provenance import environment, write_json, write_text
from ntkdiag.spectra import (
    Interval,
    effective_rank,
    entropy_effective_rank,
    lanczos_quadrature,
    top_eigenpairs,
    trace_estimates,
)

HERE = Path(__file__).parent
Array = NDArray[np.float64]
LEVELS = (0.9, 0.95)
ROUNDING = 1e-9  # of the largest eigenvalue, or of the answer: what float64 leaves of equality


def spectra(size: int) -> dict[str, Array]:
    """Name → eigenvalues, descending."""
    few = size // 8
    return {
        "flat": np.ones(size),
        "power law": np.arange(1, size + 1.0) ** -1.0,
        "low rank plus noise": np.r_[np.linspace(10, 5, few), np.full(size - few, 1e-3)],
        "clustered": np.r_[np.full(few, 5.0), np.ones(size - few)],
        "six copies each": np.repeat(0.7 ** np.arange(size / 6), 6)[:size],
        "exactly rank deficient": np.r_[np.arange(few, 0, -1.0), np.zeros(size - few)],
        "rank 1": np.r_[1.0, np.zeros(size - 1)],
        "zero": np.zeros(size),
    }


def matrix(eigenvalues: Array, seed: int) -> Tensor:
    """A symmetric matrix with these eigenvalues and random eigenvectors, float64."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    full = (basis * torch.from_numpy(eigenvalues)) @ basis.T
    return (full + full.T) / 2


def trial(eigenvalues: Array, seed: int, config: dict[str, Any]) -> dict[str, bool]:
    """Claim → whether it held."""
    a, size, pairs = matrix(eigenvalues, seed), config["size"], config["pairs"]
    slack = ROUNDING * max(1e-300, eigenvalues[0])

    def apply(vectors: Tensor) -> Tensor:
        return a @ vectors

    held = {}
    whole = top_eigenpairs(apply, a[:1], size, pairs, seed=seed)
    stopped = top_eigenpairs(apply, a[:1], size, pairs, seed=seed, max_products=config["stopped_at"])
    for name, found in (("converged", whole), ("stopped early", stopped)):
        nearest = np.abs(found.values.numpy()[:, None] - eigenvalues).min(1)
        held[f"Lanczos, {name}: an eigenvalue within each residual"] = bool(
            (nearest <= found.residuals.numpy() + slack).all()
        )
    gap = np.abs(whole.values.numpy() - eigenvalues[:pairs])
    held["Lanczos, converged: the top values, copies included"] = bool(
        whole.converged and (gap <= 1e-6 * eigenvalues[0] + slack).all()
    )
    trace, square = eigenvalues.sum(), (eigenvalues**2).sum()
    answers = {
        "trace": trace,
        "square": square,
        "participation_ratio": trace**2 / square if square else 0.0,
    }
    for level in LEVELS:
        traces = trace_estimates(apply, a[:1], size, config["probes"], level=level, seed=seed)
        for name, answer in answers.items():
            held[f"Hutch++, {level:.0%}: {name.replace('_', ' ')}"] = covers(getattr(traces, name), answer)
    rule = lanczos_quadrature(
        apply, a[:1], size, vectors=config["vectors"], steps=config["steps"], seed=seed, known=whole
    )
    rank = effective_rank(eigenvalues)
    for level in LEVELS:
        held[f"quadrature, {level:.0%}: effective rank"] = covers(entropy_effective_rank(rule, level), rank)
    return held


def covers(interval: Interval, answer: float) -> bool:
    """Whether the interval holds the answer, up to rounding."""
    slack = ROUNDING * abs(answer)
    return bool(interval.low - slack <= answer <= interval.high + slack)


def study(config: dict[str, Any]) -> pd.DataFrame:
    """One row per claim, one column per spectrum: share of the seeds in which the claim held."""
    shares = {}
    for name, eigenvalues in spectra(config["size"]).items():
        held = pd.DataFrame(trial(eigenvalues, seed, config) for seed in range(config["seeds"]))
        shares[name] = held.mean()
        print(f"\n{name}\n{held.mean().round(3).to_string()}", flush=True)
    return pd.DataFrame(shares).rename_axis("claim").reset_index()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    chosen = parser.parse_args()
    config = json.loads((HERE / "config.json").read_text())[chosen.size]
    table = study(config)
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out / "prescribed.csv", table.to_csv(index=False, float_format="%.4g"))
    write_json(chosen.out / "run.json", {"config": config, "environment": environment()})


if __name__ == "__main__":
    main()
