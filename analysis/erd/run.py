"""Does training with ERD weights give a better network than the constant rule? See README.md.

python -m analysis.erd.run [--size full|tiny] [--out FOLDER] [--data NAME ...]

A cell is one target, learning rate, seed and rule of a data set. Finished cells are read from <data>/cells.csv, and the same
command goes on.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

import ntkdiag as nd
from analysis import command_line
from analysis.erd.compare import KEY, Thresholds, answers
from analysis.erd.rules import RULES, TIES, Measuring, source
from analysis.fresh_network import fresh_network
from analysis.quality import Judge
from ntkdiag.provenance import environment, write_json, write_text
from ntkdiag.state_dicts import load_weights
from ntkdiag.train import TrainConfig, bucket_losses, sample, train
from ntkdiag.train.checkpoints.run_folder import kept_weights
from ntkdiag.train.network_state import copied

HERE = Path(__file__).parent
# A row of the history whose gradient norm is this many times the median counts as a spike.
SPIKE = 5.0
# Settings that say which cells there are; with other ones, cells that are finished stay as they are.
WHICH = ("seeds", "targets", "rules", "sweep")
# Flow matching has a path of its own.
SCHEDULES = {"flow": "flow"}


def planned(plan: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Keys of all cells: one group of rules after another, and the whole of one seed before the next.

    So a study that is stopped has whole pairs. A rule that is the same function as another is a control: it is trained for
    the first seed, at the end of the first group, whether it is among the rules or not, and for no other seed. The sweep
    over learning rates, with fewer rules and targets, comes after the group that it names by its number from 0, if there is
    one.
    """
    rate = plan["train"]["learning_rate"]
    for group, rules in enumerate(plan["rules"]):
        for seed, target in itertools.product(range(plan["seeds"]), plan["targets"]):
            chosen = [rule for rule in rules if not is_control(rule, target)]
            controls = [rule for rule in RULES if is_control(rule, target) and group == seed == 0]
            yield from ((target, rate, seed, rule) for rule in chosen + controls)
        if "sweep" in plan and group == plan["sweep"]["after"]:
            yield from swept(**plan["sweep"])


def is_control(rule: str, target: str) -> bool:
    """Whether the rule is another one's function on this target, and not the one that is compared."""
    return target in TIES and rule == TIES[target][0]


def swept(
    seeds: int, targets: list[str], learning_rates: list[float], rules: list[str], after: int
) -> Iterator[tuple[Any, ...]]:
    """Keys of the sweep over learning rates, without controls."""
    for seed, target, rate, rule in itertools.product(range(seeds), targets, learning_rates, rules):
        if not is_control(rule, target):
            yield target, rate, seed, rule


def source_of(data: str, plan: dict[str, Any]) -> str:
    """What `nd.data.load` knows a data set by: its name, or the folder that the settings name."""
    return str(plan.get("source", data))


@cache
def judge(source: str, count: int, most: int) -> Judge:
    """The judge of a data set; its classifier is trained once."""
    return Judge(nd.data.load(source), count, most)


def cell(data: str, key: tuple[Any, ...], plan: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Train one network and measure it; a seed gives every rule the same start, draws and sampling noise."""
    target, rate, seed, rule = key
    began = time.process_time()
    origin, schedule = source_of(data, plan), SCHEDULES.get(target, "cosine")
    start = fresh_network(plan["model"], plan["options"], origin, target, seed, schedule)
    used, clipped = source(rule, start, config["clip"], Measuring(**plan["measuring"]), seed)
    settings = TrainConfig(**plan["train"] | {"learning_rate": rate, "seed": seed, "log_every": 10})
    judged = judge(origin, plan["samples"], plan["held_out"])

    def drawn(denoiser: nd.Denoiser) -> torch.Tensor:
        return sample(denoiser, plan["samples"], start.data.shape, seed=seed, **plan["sampling"])

    curve = {}
    with TemporaryDirectory() as folder:
        result = train(start.denoiser, start.data, used, settings, out=Path(folder, "run"))
        along = copied(result.denoiser)
        for step, file in kept_weights(Path(folder, "run")).items():
            if 0 < step < settings.steps:
                load_weights(along, file)
                curve[f"quality_at_{step}"] = judged.quality(drawn(along))
    losses = bucket_losses(result.denoiser, start.data, nd.Buckets.uniform(**config["buckets"]))
    by_bucket = losses.per_sample.mean(dim=1).tolist()
    norms = result.history["grad_norm"]
    return {
        **dict(zip(KEY, (data, *key), strict=True)),
        "clipped": clipped,
        **judged.judge(drawn(result.denoiser)),
        **curve,
        "loss": sum(by_bucket) / len(by_bucket),
        **{f"loss_bucket_{index}": value for index, value in enumerate(by_bucket)},
        "spikes": int((norms > SPIKE * norms.median()).sum()),
        "largest_norm": norms.max(),
        "features": judged.features,
        "seconds": round(time.process_time() - began, 1),
    }


def cells(data: str, config: dict[str, Any], out: Path) -> pd.DataFrame:
    """Run the cells of a data set that are missing, writing each as it ends."""
    plan = config["data"][data]
    asked = {"plan": plan, **{name: config[name] for name in ("buckets", "clip")}}
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cells.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        if of_a_cell(json.loads((out / "study.json").read_text())["config"]) != of_a_cell(asked):
            raise SystemExit(f"{out}: expected cells of the same settings; got others. Choose another --out.")
        found = pd.read_csv(path, dtype={"features": str}).fillna({"features": ""})
        judged = judge(source_of(data, plan), plan["samples"], plan["held_out"])
        require_same_features(path, set(found["features"]), judged.features)
        rows = found.to_dict("records")
    write_json(out / "study.json", environment() | {"config": asked})
    finished = {tuple(row[name] for name in KEY) for row in rows}
    for key in planned(plan):
        if (data, *key) not in finished:
            rows.append(cell(data, key, plan, config))
            write_text(path, pd.DataFrame(rows).to_csv(index=False))
            print(*key, f"quality {rows[-1]['quality']:.4g}, {rows[-1]['seconds']} s", flush=True)
    return pd.DataFrame(rows)


def require_same_features(path: Path, found: set[str], features: str) -> None:
    """Refuse to go on with cells that another classifier has judged: their distances do not compare."""
    if found - {features}:
        raise SystemExit(
            f"{path}: expected cells judged by the features '{features}'; got '{', '.join(sorted(found))}'. "
            "Choose another --out."
        )


def of_a_cell(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a study that decide what a cell is; the others say which cells there are, and may change."""
    plan = {name: value for name, value in config.get("plan", {}).items() if name not in WHICH}
    return config | {"plan": plan}


def study(size: str, out: Path, only: list[str] | None = None) -> None:
    """Run what is missing of each data set, and compare."""
    config = command_line.settings(HERE, size)
    for data in only or config["data"]:
        found = cells(data, config, out / data)
        thresholds = Thresholds(
            config["data"][data]["threshold_step"], config["data"][data]["train"]["steps"]
        )
        for title, table in answers(found, thresholds, nd.Buckets.uniform(**config["buckets"])).items():
            write_text(out / data / f"{title}.csv", table.to_csv(index=False, float_format="%.4g"))
            print(table.to_string(index=False, float_format="%.4g"))


def main() -> None:
    """Parse and run."""
    made = command_line.parser(__doc__, HERE)
    made.add_argument("--data", nargs="+", help="the data sets to run; all by default")
    chosen = made.parse_args()
    torch.set_num_threads(1)
    study(chosen.size, chosen.out, chosen.data)


if __name__ == "__main__":
    main()
