"""Is the stated bound of the recoverable share on the right side, and how far below the truth does it lie? See README.md."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from analysis import command_line
from ntkdiag.process import schedules
from ntkdiag.process.bayes import MixtureOracle, bayes_share, best_bound, cross_fitted, linear_mmse
from ntkdiag.provenance import write_text

HERE = Path(__file__).parent
# count, generator → samples [count, D]
Draw = Callable[[int, torch.Generator], Tensor]


def gaussian(variances: Tensor, log_snr: Tensor) -> tuple[Draw, Tensor, float]:
    """Samples N(0, diag(variances)), their MMSE and their mean variance."""

    def draw(count: int, generator: torch.Generator) -> Tensor:
        shape = (count, len(variances))
        return torch.randn(shape, generator=generator, dtype=torch.float64) * variances.sqrt()

    return draw, linear_mmse(variances, log_snr), float(variances.mean())


def mixture(dimensions: int, log_snr: Tensor) -> tuple[Draw, Tensor, float]:
    """Eight modes on a circle in the plane; ten random modes of standard deviation 0.3 in more dimensions."""
    generator = torch.Generator().manual_seed(0)
    if dimensions == 2:
        angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
        means, std = torch.stack([angles.cos(), angles.sin()], 1), 0.1
    else:
        means, std = 0.7 * torch.randn(10, dimensions, generator=generator, dtype=torch.float64), 0.3
    oracle = MixtureOracle(means, std)
    variance = float((means - means.mean(0)).square().mean()) + std**2
    return oracle.sample, oracle.mmse(log_snr, samples=200_000 // dimensions + 20_000), variance


def population(name: str, dimensions: int, log_snr: Tensor) -> tuple[Draw, Tensor, float]:
    """White: variance 0.25. Low rank: variance 2 in one direction of sixteen, 0.001 in the others."""
    if name == "mixture":
        return mixture(dimensions, log_snr)
    variances = torch.full((dimensions,), 0.25, dtype=torch.float64)
    if name == "low rank":
        strong = torch.arange(dimensions) < max(1, dimensions // 16)
        variances = torch.where(strong, 2.0, 0.001).double()
    return gaussian(variances, log_snr)


def cell(name: str, dimensions: int, samples: int, config: dict[str, Any]) -> list[dict[str, Any]]:
    """How often the bound lies above the true share, and its median distance below, by target and log-SNR."""
    log_snr = torch.tensor(config["log_snr"], dtype=torch.float64)
    path = schedules.cosine()
    draw, mmse, variance = population(name, dimensions, log_snr)
    truth = {t: bayes_share(t, path, log_snr, mmse, variance) for t in config["targets"]}
    bounds: dict[str, list[Tensor]] = {target: [] for target in truth}
    for seed in range(config["draws"]):
        candidates = cross_fitted(draw(samples, torch.Generator().manual_seed(1000 + seed)), log_snr, seed)
        for target, found in bounds.items():
            found.append(best_bound(target, path, log_snr, candidates).share)
    rows = []
    for target, found in bounds.items():
        stated = torch.stack(found)
        for k, level in enumerate(config["log_snr"]):
            true = float(truth[target][k])
            rows.append(
                {
                    "population": name,
                    "dimensions": dimensions,
                    "samples": samples,
                    "target": target,
                    "log_snr": level,
                    "share": true,
                    "stated_median": float(stated[:, k].median()),
                    "wrong_side": float((stated[:, k] > true + 1e-9).double().mean()),
                }
            )
    return rows


def study(config: dict[str, Any]) -> pd.DataFrame:
    """One row per population, size, target and log-SNR."""
    rows = []
    for name, sizes in config["cells"].items():
        for dimensions, counts in sizes.items():
            for samples in counts:
                started = time.perf_counter()
                found = cell(name, int(dimensions), samples, config)
                worst = max(row["wrong_side"] for row in found)
                below = max(row["share"] - row["stated_median"] for row in found)
                print(
                    f"{name:9} D={dimensions:5} N={samples:5}  wrong side: at most {worst:.1%} of {config['draws']} draws; "
                    f"below the truth: at most {below:.3f}  ({time.perf_counter() - started:.0f} s)",
                    flush=True,
                )
                rows += found
    return pd.DataFrame(rows)


if __name__ == "__main__":
    arguments = command_line.parser(__doc__, HERE).parse_args()
    table = study(command_line.settings(HERE, arguments.size))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "shares.csv", table.to_csv(index=False, float_format="%.4g"))
