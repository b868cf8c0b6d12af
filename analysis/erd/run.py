"""Does training with ERD weights give a better network than the constant rule? See README.md.

python -m analysis.erd.run [--size full|tiny] [--out FOLDER]

A cell is one data set, target, seed and rule. Finished cells are read from cells.csv, and the same command goes on.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import ntkdiag as nd
from analysis import command_line
from analysis.erd.compare import differences, ties
from analysis.erd.quality import quality
from analysis.erd.rules import RULES, weights
from ntkdiag.cli.inputs.loading import load_recipe
from ntkdiag.cli.inputs.recipe import Recipe
from ntkdiag.provenance import environment, write_json, write_text
from ntkdiag.train import TrainConfig, bucket_losses, sample, train

HERE = Path(__file__).parent
KEY = ["data", "target", "seed", "rule"]
# A row of the history whose gradient norm is this many times the median counts as a spike.
SPIKE = 5.0


def cell(name: str, target: str, seed: int, rule: str, config: dict[str, Any]) -> dict[str, Any]:
    """Train one network and measure it; a seed gives every rule the same start, draws and sampling noise."""
    chosen = config["data"][name]
    recipe = Recipe(
        chosen["model"],
        chosen["options"],
        data=name,
        schedule="cosine",
        target=target,
        call="log_snr",
        seed=seed,
    )
    start = load_recipe(recipe, None, "cpu")
    table, clipped = weights(rule, target, start.denoiser.schedule, config["clip"])
    settings = TrainConfig.preset(name, steps=chosen["steps"], seed=seed, log_every=10)
    result = train(start.denoiser, start.data, table, settings)
    losses = bucket_losses(result.denoiser, start.data, nd.Buckets.uniform(**config["buckets"]))
    by_bucket = losses.per_sample.mean(dim=1).tolist()
    shape = tuple(start.data.train[torch.arange(1)].shape[1:])
    samples = sample(result.denoiser, chosen["samples"], shape, steps=chosen["sampling_steps"], seed=seed)
    found, floor = quality(samples, start.data, name)
    norms = result.history["grad_norm"]
    return {
        **dict(zip(KEY, (name, target, seed, rule), strict=True)),
        "clipped": clipped,
        "quality": found,
        "floor": floor,
        "loss": sum(by_bucket) / len(by_bucket),
        **{f"loss_bucket_{index}": value for index, value in enumerate(by_bucket)},
        "spikes": int((norms > SPIKE * norms.median()).sum()),
        "largest_norm": norms.max(),
    }


def study(size: str, out: Path) -> None:
    """Run the cells that are missing, writing each as it ends, and compare."""
    config = command_line.settings(HERE, size)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cells.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        if json.loads((out / "study.json").read_text())["config"] != config:
            raise SystemExit(f"{out}: expected cells of the same settings; got others. Choose another --out.")
        rows = pd.read_csv(path).to_dict("records")
    write_json(out / "study.json", environment() | {"config": config})
    finished = {tuple(row[name] for name in KEY) for row in rows}
    for name, chosen in config["data"].items():
        # Seed by seed, so that a study that is stopped has whole pairs.
        for seed, target, rule in itertools.product(range(chosen["seeds"]), config["targets"], RULES):
            if (name, target, seed, rule) in finished:
                continue
            rows.append(cell(name, target, seed, rule, config))
            write_text(path, pd.DataFrame(rows).to_csv(index=False))
            print(f"{name} {target} seed {seed} {rule}: quality {rows[-1]['quality']:.4g}", flush=True)
    cells = pd.DataFrame(rows)
    for title, table in (("differences", differences(cells)), ("ties", ties(cells))):
        write_text(out / f"{title}.csv", table.to_csv(index=False, float_format="%.4g"))
        print(table.to_string(index=False, float_format="%.4g"))


def main() -> None:
    """Parse and run."""
    chosen = command_line.parser(__doc__, HERE).parse_args()
    torch.set_num_threads(1)
    study(chosen.size, chosen.out)


if __name__ == "__main__":
    main()
