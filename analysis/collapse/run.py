"""The paper's toy study over seeds: does the kernel of a network on a 2-D mixture collapse, where, for which target?

    python -m analysis.collapse.run            # five to ten minutes on one core
    python -m analysis.collapse.run --quick    # one seed, few steps: does it run?

Writes results/buckets.csv (one row per seed, target, step and bucket), results/ends.csv (effects at the ends of the range,
and verdicts over seeds), results/shares.csv (contamination and loss) and results/run.json (machine, versions, seconds).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau

import ntkdiag as nd
from ntkdiag import provenance
from ntkdiag.claims.ends import ENDS, contrast, thirds
from ntkdiag.claims.recipe import MIN_SEEDS, decide, over_seeds
from ntkdiag.confidence import quantile
from ntkdiag.process import bayes, target
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.recoverability import amplitude
from ntkdiag.train import TrainConfig, train

HERE = Path(__file__).parent
STATISTICS = ("trace", "effective_rank", "shared_share", "centred_effective_rank")


class Observer:
    """Constant weights that call a function after chosen training steps."""

    def __init__(self, denoiser: nd.Denoiser, steps: list[int], look: Any) -> None:
        self.target = denoiser.target
        self._steps, self._look = set(steps), look

    def __call__(self, log_snr: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(log_snr)

    def after_step(self, step: int) -> None:
        if step in self._steps:
            self._look(step)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def measure_bucket(
    denoiser: nd.Denoiser, data: Any, draws: PairedDraws, log_snr: float, mmse: float
) -> dict[str, float]:
    """Full kernel, floor, excess and contamination of one bucket."""
    schedule, name = denoiser.schedule, denoiser.target
    full = nd.gram(denoiser, draws.x0, log_snr, kernel="full", epsilon=draws.epsilon)
    spectrum, (shared, apart) = (
        nd.spectra.eigenvalues(full.matrix),
        without_shared(full.matrix, len(draws.x0)),
    )
    level = torch.tensor(log_snr, dtype=torch.float64)
    x0, noise = draws.x0.double(), draws.epsilon.double()
    x, wanted = denoiser.training_pair(x0, noise, level)
    alpha, sigma = schedule.alpha(level), schedule.sigma(level)
    mean = data.oracle.posterior_mean(x, alpha, sigma)
    best = target.value(name, schedule, level, mean, (x - alpha * mean) / sigma)
    with torch.no_grad():
        predicted = denoiser(x.float(), log_snr).double()
    residual, unlearnable = predicted - wanted, best - wanted
    inputs = (x.float(), torch.full((len(x),), log_snr))
    energy = (
        nd.gram_of(denoiser, inputs, torch.stack([residual, unlearnable]).float())
        .diagonal(dim1=1, dim2=2)
        .mean(1)
    )
    return {
        "trace": float(spectrum.values.sum()),
        "top_eigenvalue": float(spectrum.values[0]),
        "effective_rank": nd.spectra.effective_rank(spectrum),
        "shared_share": shared,
        "centred_effective_rank": nd.spectra.effective_rank(nd.spectra.eigenvalues(apart)),
        "participation_ratio": nd.spectra.participation_ratio(spectrum),
        "loss": float(residual.square().mean()),
        "floor": float(bayes.floor(name, schedule, level, torch.tensor(mmse, dtype=torch.float64))),
        "excess": float((predicted - best).square().mean()),
        "contamination": float(energy[1] / energy[0]),
        "amplitude": float(amplitude(name, schedule, level)),
    }


def without_shared(full: torch.Tensor, samples: int) -> tuple[float, torch.Tensor]:
    """What the full kernel is without the answer that all samples share, output by output.

    Args:
        full: [N·D, N·D], the D outputs of a sample next to each other.
        samples: N.

    Returns:
        The share of the trace in the shared answer, and (H ⊗ 1) K (H ⊗ 1) with H = 1 − 11ᵀ/N, of the same shape.
    """
    blocks = full.reshape(samples, -1, samples, full.shape[0] // samples)
    left = blocks - blocks.mean(0, keepdim=True)
    apart = (left - left.mean(2, keepdim=True)).reshape(full.shape)
    return 1 - float(apart.trace() / full.trace()), (apart + apart.T) / 2


def one_network(name: str, seed: int, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Train one network and measure it at the chosen steps."""
    data = nd.data.load("mixture")
    network = nd.models.build("mlp", data.shape, seed=seed)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), name, call="log_snr")
    buckets = nd.Buckets.uniform(**config["buckets"])
    draws = PairedDraws.draw(data.train, config["samples"], seed)
    floors = data.oracle.mmse(torch.tensor(buckets.centers, dtype=torch.float64))
    rows: list[dict[str, Any]] = []

    def look(step: int) -> None:
        for b, log_snr in enumerate(buckets.centers):
            found = measure_bucket(denoiser, data, draws, log_snr, float(floors[b]))
            rows.append(
                {"target": name, "seed": seed, "step": step, "bucket": b, "log_snr": log_snr, **found}
            )

    steps = config["measure_at"]
    if 0 in steps:
        look(0)
    settings = TrainConfig(
        steps=max(steps),
        batch=config["batch"],
        learning_rate=config["learning_rate"],
        seed=seed,
        log_every=100,
    )
    train(denoiser, data, Observer(denoiser, steps, look), settings)
    return rows


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Per target and step: fall of each statistic from the middle third to either end, and the verdict over seeds."""
    rows = []
    for (name, step), part in table.groupby(["target", "step"], sort=False):
        effects, levels = {}, np.sort(part["log_snr"].unique())
        for what in STATISTICS:
            logs = np.log(part.pivot(index="seed", columns="log_snr", values=what).to_numpy())
            for end in ENDS:
                parts = {where: np.exp(logs[:, thirds(levels)[where]].mean()) for where in ("middle", end)}
                effects[what, end] = (logs @ contrast(levels, end), parts["middle"], parts[end])
        tests, words = {}, {}
        if part["seed"].nunique() >= MIN_SEEDS:
            tests = {" ".join(key): over_seeds(values) for key, (values, *_) in effects.items()}
            words = decide(tests)
        for (what, end), (values, middle, there) in effects.items():
            row = {
                "target": name,
                "step": step,
                "statistic": what,
                "end": end,
                "middle": middle,
                "at_end": there,
            }
            rows.append(row | interval(values) | {"verdict": words.get(f"{what} {end}", "")})
    return pd.DataFrame(rows)


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """Per target and step: what contamination runs along with, and where the loss lies, over seeds."""
    rows = []
    for (name, step), part in table.groupby(["target", "step"], sort=False):
        per_seed: dict[str, list[float]] = {}
        for _, run in part.groupby("seed"):
            tau = kendalltau(run["amplitude"].round(9), run["contamination"]).statistic
            per_seed.setdefault("Kendall tau of contamination with amplitude", []).append(tau)
            share = run["floor"] / run["floor"].sum()
            per_seed.setdefault("share of the loss from the half with the higher floor", []).append(
                float(run.loc[share >= share.median(), "loss"].sum() / run["loss"].sum())
            )
        for what, values in per_seed.items():
            rows.append({"target": name, "step": step, "what": what, **interval(np.array(values))})
    return pd.DataFrame(rows)


def interval(values: np.ndarray, level: float = 0.9) -> dict[str, float]:
    """Mean over seeds with a Student interval."""
    count = len(values)
    if count < 2:
        return {"mean": float(values.mean()), "low": np.nan, "high": np.nan, "seeds": count}
    reach = quantile(level, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return {
        "mean": float(values.mean()), "low": float(values.mean() - reach), "high": float(values.mean() + reach),
        "seeds": count,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed and few steps")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    config = json.loads((HERE / "config.json").read_text())
    if options.quick:
        config |= {"seeds": [0], "measure_at": [0, 20], "samples": 8}
    started = time.perf_counter()
    rows = []
    for name in config["targets"]:
        for seed in config["seeds"]:
            rows += one_network(name, seed, config)
            print(f"{name} seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    found = {"ends": ends(table), "shares": shares(table)}
    options.out.mkdir(parents=True, exist_ok=True)
    provenance.write_text(options.out / "buckets.csv", table.to_csv(index=False))
    for name, rows_of in found.items():
        provenance.write_text(options.out / f"{name}.csv", rows_of.to_csv(index=False, float_format="%.4g"))
    seconds = round(time.perf_counter() - started, 1)
    provenance.write_json(
        options.out / "run.json",
        {"config": config, "environment": provenance.environment(), "seconds": seconds},
    )
    pd.set_option("display.width", 160, "display.max_colwidth", 60, "display.max_rows", 100)
    print(*(rows_of.round(3).to_string(index=False) for rows_of in found.values()), sep="\n\n")


if __name__ == "__main__":
    main()
