"""What do networks trained on three targets, with three training densities, say of the paper's claims? See README.md.

    python -m analysis.verdicts.run     # an hour on one core; recipes that the results have are not trained again

Writes results/buckets.csv (a row a network and bucket), results/answers.csv (a row a network, statistic and end),
results/verdicts.csv (a row a recipe, claim and end) and results/slopes.csv (what the statistics follow between targets).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import ntkdiag as nd
from analysis.verdicts.networks import Cell, cells, measured, schedule_of
from ntkdiag.claims.effects import SHOWN, effects
from ntkdiag.claims.recipe import between_targets, over_seeds
from ntkdiag.claims.recipe.following import LEAST_DENSITY, LEAST_SHARE
from ntkdiag.confidence import quantile
from ntkdiag.provenance import write_text

HERE = Path(__file__).parent
KEPT = Path("build/verdicts")
FOLLOWING = ("effective_rank", "centred_effective_rank", "trace", "shared_share")
VERDICTS = (
    "claim", "end", "verdict", "effect", "low", "high", "p_supported", "p_contradicted", "p_absent", "seeds",
)  # fmt: skip
BUCKETS = ("log_snr", "loss", "amplitude", "bayes_share", "bayes_share_estimate")


def buckets_and_answers(found: dict[Cell, nd.Diagnosis]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every bucket, and every effect with its limits, of every network."""
    rows, answers = [], []
    for cell, diagnosis in found.items():
        summary = diagnosis.summary
        rows.append(summary[[*BUCKETS, *SHOWN]].assign(**vars(cell)))
        table = effects(
            summary["log_snr"].to_numpy(), diagnosis.grams["trace"], diagnosis.grams.get("per_probe")
        )
        answers.append(table.frame().assign(**vars(cell)))
    return pd.concat(rows, ignore_index=True), pd.concat(answers, ignore_index=True)


def beside_controls(answers: pd.DataFrame, controls: int) -> pd.DataFrame:
    """Effects with the band of the untrained controls of the same data, and whether they lie outside."""
    answers = answers[[name for name in answers if name not in ("control_low", "control_high", "learned")]]
    new = answers[answers["density"] == "none"].groupby(["data", "statistic", "end"])["effect"]
    band = new.agg(["mean", "std"])
    reach = quantile(0.95, controls - 1) * band["std"] * np.sqrt(1 + 1 / controls)
    band = pd.DataFrame({"control_low": band["mean"] - reach, "control_high": band["mean"] + reach})
    answers = answers.merge(band.reset_index(), on=["data", "statistic", "end"])
    outside = (answers["effect"] < answers["control_low"]) | (answers["effect"] > answers["control_high"])
    answers["learned"] = np.where(
        answers["density"] == "none", "", np.where(outside, "learned", "as before training")
    )
    return answers


def missing(config: dict[str, Any], buckets: pd.DataFrame) -> list[Cell]:
    """The networks of every recipe (data, target, density) of which a table lacks at least one."""
    known = (
        set(buckets[["data", "target", "density", "seed"]].itertuples(index=False, name=None))
        if len(buckets)
        else set()
    )
    every = list(cells(config))
    lacking = {
        (c.data, c.target, c.density) for c in every if (c.data, c.target, c.density, c.seed) not in known
    }
    return [c for c in every if (c.data, c.target, c.density) in lacking]


def joined(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Rows of both; of a recipe that is in both, the new ones."""
    if old.empty:
        return new
    keys = ["data", "target", "density"]
    again = old[keys].apply(tuple, axis=1).isin(set(new[keys].itertuples(index=False, name=None)))
    return pd.concat([old[~again], new], ignore_index=True)


def recipes(found: dict[Cell, nd.Diagnosis]) -> pd.DataFrame:
    """Verdicts over seeds, a row a recipe, claim and end; corrected over the claims and ends of a recipe."""
    seeds: dict[tuple[str, str, str], list[nd.Diagnosis]] = {}
    for cell, diagnosis in found.items():
        if cell.density != "none":
            seeds.setdefault((cell.data, cell.target, cell.density), []).append(diagnosis)
    rows = []
    for (data, target, density), diagnoses in seeds.items():
        claims = nd.verify(diagnoses, recipe=True).claims
        rows.append(claims[list(VERDICTS)].assign(data=data, target=target, density=density))
    table = pd.concat(rows, ignore_index=True)
    return table[["data", "target", "density", *VERDICTS]]


def slopes(buckets: pd.DataFrame, config: dict[str, Any]) -> pd.DataFrame:
    """Slopes of ln S on ln recoverable share (and on ln training density) between recipes, with 90% intervals over seeds."""
    return pd.DataFrame(_slopes(buckets[buckets["density"] != "none"], config))


def _slopes(trained: pd.DataFrame, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for data, rows in trained.groupby("data", sort=False):
        for density in (*config["data"][data]["densities"], "all"):
            some = rows if density == "all" else rows[rows["density"] == density]
            recipes = list(some.groupby(["target", "density"], sort=False))
            rulers = {"recoverable share": np.stack([_share(one) for _, one in recipes])}
            if density == "all":
                rulers["training density"] = np.stack([_density(key[1], one, config) for key, one in recipes])
            for statistic in FOLLOWING:
                logs = np.stack([_by_seed(one, statistic) for _, one in recipes])
                found = between_targets(logs, *rulers.values())
                for ruler, values in zip(rulers, found.T, strict=True):
                    test = over_seeds(values, least=0)
                    label = {"data": data, "density": density, "statistic": statistic, "follows": ruler}
                    yield label | {
                        "slope": test.effect,
                        "low": test.low,
                        "high": test.high,
                        "p": test.p_supported,
                    }


def _by_seed(one: pd.DataFrame, statistic: str) -> np.ndarray:
    """ln of a statistic, [seeds, buckets]."""
    return np.log(one.pivot(index="seed", columns="log_snr", values=statistic).to_numpy())


def _share(one: pd.DataFrame) -> np.ndarray:
    """ln of the recoverable share, the mean over seeds, [buckets]."""
    shares = one.groupby("log_snr")["bayes_share_estimate"].mean().to_numpy()
    return np.log(np.clip(shares, LEAST_SHARE, None))


def _density(density: str, one: pd.DataFrame, config: dict[str, Any]) -> np.ndarray:
    """ln of the training density, not below that of one sample in a million nats, [buckets]."""
    levels = torch.from_numpy(np.sort(one["log_snr"].unique()))
    return np.log(np.clip(schedule_of(density, config).density(levels).numpy(), LEAST_DENSITY, None))


def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    return table.assign(note=table["note"].astype(object).fillna("")) if "note" in table else table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the measured networks")
    options = parser.parse_args()
    config = json.loads((HERE / "config.json").read_text())
    names = ("buckets", "answers", "verdicts")
    old = {name: _read(HERE / "results" / f"{name}.csv") for name in names}
    wanted = missing(config, old["buckets"])
    found = {
        cell: measured(cell, config, options.kept, lambda text: print(text, flush=True)) for cell in wanted
    }
    tables = old
    if found:
        new = (*buckets_and_answers(found), recipes(found))
        tables = {name: joined(old[name], table) for name, table in zip(names, new, strict=True)}
    tables["answers"] = beside_controls(tables["answers"], len(config["controls"]))
    tables["slopes"] = slopes(tables["buckets"], config)
    (HERE / "results").mkdir(exist_ok=True)
    for name, table in tables.items():
        write_text(HERE / "results" / f"{name}.csv", table.to_csv(index=False, float_format="%.4g"))
    shown = tables["verdicts"].pivot(
        index=["data", "target", "density"], columns=["claim", "end"], values="verdict"
    )
    print(shown.to_string(), tables["slopes"].round(3).to_string(), sep="\n\n")


if __name__ == "__main__":
    main()
