"""Naive and corrected ranks as the number of samples grows, on populations whose answer is known; see README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.coverage.extrapolation import MIN_SAMPLES, extrapolate
from analysis.coverage.populations import SPECTRA, features, gram
from ntkdiag.provenance import write_text
from ntkdiag.spectra import Interval, effective_rank, participation_ratio, subsample_intervals

HERE = Path(__file__).parent
# statistic → the population's value it is held against
READ = {
    "participation_ratio": participation_ratio,
    "participation_ratio_pairs": participation_ratio,
    "effective_rank": effective_rank,
    "effective_rank_extrapolated": effective_rank,
}


def sweep(config: dict[str, Any]) -> pd.DataFrame:
    """One row per population, number of samples and statistic."""
    rows = []
    for name in config["populations"]:
        for samples in config["samples"]:
            rows += cell(name, samples, config)
            print(pd.DataFrame(rows[-len(READ) :]).round(3).to_string(index=False, header=False), flush=True)
    return pd.DataFrame(rows)


def cell(name: str, samples: int, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Every statistic of fresh kernels of N samples: medians over repeats of the value and of its interval's ends."""
    spectrum = SPECTRA[name]
    found: dict[str, list[Interval]] = {statistic: [] for statistic in READ}
    misfits: list[float] = []
    extrapolated = MIN_SAMPLES <= samples <= config["most_extrapolated"]
    for repeat in range(config["repeats"]):
        matrix = gram(features(name, "light", samples, np.random.default_rng([13, samples, repeat])))
        plain = [statistic for statistic in READ if not statistic.endswith("extrapolated")]
        for statistic, interval in subsample_intervals(plain, matrix, level=config["level"]).items():
            found[statistic].append(interval)
        if extrapolated and repeat < config["extrapolated_repeats"]:
            fit = extrapolate(
                matrix, level=config["level"], groups=config["extrapolated_groups"], seed=repeat
            )
            found["effective_rank_extrapolated"].append(fit.limit)
            misfits.append(fit.misfit)
    place = {"population": name, "samples": samples}
    rows = [
        place | {"statistic": statistic} | summarised(intervals, READ[statistic](spectrum))
        for statistic, intervals in found.items()
        if intervals
    ]
    if misfits:
        rows[-1]["misfit"] = float(np.median(misfits))
    return rows


def summarised(intervals: list[Interval], truth: float) -> dict[str, float]:
    """Medians, 90% range of the value, and how often the interval holds the population's value."""
    value, low, high = (np.array([getattr(i, end) for i in intervals]) for end in ("value", "low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    return {
        "truth": truth,
        "repeats": len(intervals),
        "value": float(np.median(value)),
        "value_5": float(np.quantile(value, 0.05, method="nearest")),
        "value_95": float(np.quantile(value, 0.95, method="nearest")),
        "low": float(np.median(low[known])) if known.any() else np.nan,
        "high": float(np.median(high[known])) if known.any() else np.nan,
        "without_interval": float(1 - known.mean()),
        "holds_truth": float(((low <= truth) & (truth <= high)).mean()),
    }


if __name__ == "__main__":
    settings = json.loads((HERE / "config.json").read_text())["sweep"]
    write_text(HERE / "results" / "sweep.csv", sweep(settings).to_csv(index=False, float_format="%.4g"))
