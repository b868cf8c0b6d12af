"""Where the uncertainty of a kernel statistic comes from: the data drawn, the noise drawn, or the probes.

Each source is redrawn alone while the two others stay, and all three together; what a single source explains of the
whole says whether more samples or more probes would help.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import require_positive_int
from ntkdiag.kernel import gram
from ntkdiag.process.buckets import PairedDraws
from ntkdiag.spectra import evaluate

SOURCES = ("data", "noise", "probes")
STATISTICS = ("trace", "top_eigenvalue", "effective_rank")


def variance_shares(
    denoiser: Denoiser,
    data: Data,
    log_snr: float,
    *,
    samples: int = 64,
    probes: int = 8,
    repeats: int = 8,
    seed: int = 0,
) -> pd.DataFrame:
    """Variance of ln(statistic) by source, at one noise level.

    Args:
        denoiser: The network.
        data: Samples are drawn from its training part without replacement.
        log_snr: The noise level.
        samples: N.
        probes: R.
        repeats: Redraws of each source, at least 2; a variance from m redraws has a relative error of √(2/(m−1)).
        seed: Everything is derived from it.

    Returns:
        A row a statistic and source (data, noise, probes, all): variance of the logarithm, and share of the variance with
        everything redrawn (shares need not add up to 1: they are estimates, and sources interact).

    Raises:
        InputError: fewer than 2 repeats.
    """
    require_positive_int("repeats", repeats, minimum=2)
    base = dict.fromkeys(SOURCES, seed)
    found: dict[str, dict[str, np.ndarray]] = {}
    for source in (*SOURCES, "all"):
        runs = []
        for repeat in range(1, repeats + 1):
            other = seed + 1000 * repeat
            seeds = dict.fromkeys(SOURCES, other) if source == "all" else {**base, source: other}
            runs.append(_logs(denoiser, data, log_snr, samples, probes, seeds))
        found[source] = {name: np.array([run[name] for run in runs]) for name in STATISTICS}
    rows = []
    for name in STATISTICS:
        whole = found["all"][name].var(ddof=1)
        for source, values in found.items():
            variance = float(values[name].var(ddof=1))
            share = variance / whole if whole > 0 else math.nan
            rows.append({"statistic": name, "source": source, "variance": variance, "share": share})
    return pd.DataFrame(rows)


def _logs(
    denoiser: Denoiser, data: Data, log_snr: float, samples: int, probes: int, seeds: dict[str, int]
) -> dict[str, float]:
    draws = PairedDraws.draw(data.train, samples, data_seed=seeds["data"], noise_seed=seeds["noise"])
    found = gram(denoiser, draws.x0, log_snr, probes=probes, seed=seeds["probes"], epsilon=draws.epsilon)
    matrix = found.matrix.to(torch.float64).numpy()[None]
    return {name: math.log(float(evaluate(name, matrix)[0])) for name in STATISTICS}
