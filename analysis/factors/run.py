"""Do the optimizer, the weight rule or a representation prior change kernel, features or quality? See README.md.

python -m analysis.factors.run [--size full|tiny] [--out FOLDER]

A cell is one seed, optimizer, rule, and with or without the prior. Finished cells are read from cells.csv, and the same
command goes on.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import ntkdiag as nd
from analysis import command_line
from analysis.factors.contrasts import FACTORS, contrasts, means
from ntkdiag.claims.effects import effects
from ntkdiag.claims.ends import thirds
from ntkdiag.provenance import environment, write_json, write_text

HERE = Path(__file__).parent
KEY = ["seed", *FACTORS]
UNTRAINED = "untrained"
RANKS = ("effective_rank", "centred_effective_rank")


def fresh(seed: int, config: dict[str, Any], data: nd.data.Data) -> nd.Denoiser:
    """The network before training."""
    network = nd.models.build(config["network"], data.shape, seed=seed, **config["options"])
    return nd.Denoiser(network, nd.schedules.cosine(), config["target"], call="log_snr")


def trained(
    seed: int, optimizer: str, rule: str, prior: bool, config: dict[str, Any], data: nd.data.Data
) -> nd.Denoiser:
    """A trained network; a seed gives every cell the same start and the same draws."""
    start = fresh(seed, config, data)
    table = None if rule == "constant" else nd.weights.rule(rule, config["target"], start.schedule)
    settings = nd.train.TrainConfig(
        steps=config["steps"],
        batch=config["batch"],
        optimizer=optimizer,
        learning_rate=config["learning_rates"][optimizer],
        align=config["align"] if prior else 0.0,
        seed=seed,
    )
    return nd.train.train(start, data, table, settings).denoiser


def measured(denoiser: nd.Denoiser, seed: int, config: dict[str, Any], data: nd.data.Data) -> dict[str, Any]:
    """The kernel at the noisy third of noise levels, the features of the blocks, losses and samples."""
    levels = nd.Buckets.uniform(**config["buckets"])
    at = thirds(levels.centers)
    diagnosis = nd.measure(
        denoiser, data, levels, samples=config["samples"], probes=config["probes"], progress=False
    )
    found = effects(
        np.array(levels.centers), diagnosis.grams["trace"], diagnosis.grams.get("per_probe"), statistics=RANKS
    )
    plain, centred = (found[name, "noisy"] for name in RANKS)
    rows = nd.trust.features(
        denoiser, data, config["modules"], buckets=levels, samples=config["feature_samples"]
    ).table
    rows = rows[rows["network"] == "trained"]
    noisy, middle = (rows[rows["bucket"].isin(np.flatnonzero(at[name]))] for name in ("noisy", "middle"))
    losses = nd.train.bucket_losses(denoiser, data, levels).per_sample.mean(dim=1).tolist()
    samples = nd.train.sample(
        denoiser, config["sampled"], data.shape, steps=config["sampling_steps"], seed=seed
    )
    held_out = data.held_out_for("the quality of samples")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: len(samples)]
    return {
        "rank_noisy": plain.at_end,
        "rank_fall": plain.effect,
        "word": plain.word,
        "centred_rank_noisy": centred.at_end,
        "shared_noisy": diagnosis.summary["shared_share"].to_numpy()[at["noisy"]].mean(),
        "features_rank_noisy": np.exp(np.log(noisy["centred_effective_rank"]).mean()),
        "probe_middle": middle["probe"].mean(),
        "quality": nd.train.frechet_distance(samples, held_out),
        "floor": nd.train.frechet_distance(data.train[order], held_out),
        "loss": float(np.mean(losses)),
        **{f"loss_bucket_{index}": value for index, value in enumerate(losses)},
    }


def study(size: str, out: Path) -> None:
    """Run the cells that are missing, writing each as it ends, and compare."""
    config = command_line.settings(HERE, size)
    data = nd.data.load(config["data"])
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cells.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        if json.loads((out / "study.json").read_text())["config"] != config:
            raise SystemExit(f"{out}: expected cells of the same settings; got others. Choose another --out.")
        rows = pd.read_csv(path, keep_default_na=False, na_values=[""]).to_dict("records")
    write_json(out / "study.json", environment() | {"config": config})
    finished = {tuple(row[name] for name in KEY) for row in rows}
    # Seed by seed, so that a study that is stopped has whole pairs.
    for seed in range(config["seeds"]):
        factors = itertools.product(config["learning_rates"], config["rules"], (False, True))
        for optimizer, rule, prior in [(UNTRAINED, "none", False), *factors]:
            if (seed, optimizer, rule, prior) in finished:
                continue
            begun = time.perf_counter()
            given = (
                fresh(seed, config, data)
                if optimizer == UNTRAINED
                else trained(seed, optimizer, rule, prior, config, data)
            )
            key = dict(zip(KEY, (seed, optimizer, rule, prior), strict=True))
            rows.append(key | measured(given, seed, config, data))
            write_text(path, pd.DataFrame(rows).to_csv(index=False))
            print(
                *key.values(), f"rank {rows[-1]['rank_noisy']:.3g}, quality {rows[-1]['quality']:.4g},",
                f"{time.perf_counter() - begun:.0f} s", flush=True,
            )  # fmt: skip
    cells = pd.DataFrame(rows)
    tables = {"means": means(cells), "contrasts": contrasts(cells[cells["optimizer"] != UNTRAINED])}
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False, float_format="%.4g"))
        print(table.to_string(index=False, float_format="%.3g"))


def main() -> None:
    """Parse and run."""
    command_line.run(__doc__, HERE, study)


if __name__ == "__main__":
    main()
