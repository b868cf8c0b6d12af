"""Are the words of an answer, and the verdicts on a recipe, wrong as seldom as they say? See README.md.

python -m analysis.calibration.run      # an hour on one core; a run that was stopped goes on where it was
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.calibration.curves import recipes
from analysis.calibration.populations import Planted, kernels, planted
from analysis.calibration.untrained import learned
from ntkdiag.claims.effects import Effect, effects
from ntkdiag.claims.words import ABSENT, FALLS, RISES, THRESHOLD
from ntkdiag.provenance import write_text

HERE = Path(__file__).parent
KEYS = ("population", "samples", "probes", "a_third", "factor")


def words_of(one: Planted, sizes: dict[str, Any], outputs: int, seed: int) -> list[dict[str, Any]]:
    """How often each word is used at either end, and the mean effect, over fresh draws; a row a statistic."""
    rng, repeats = np.random.default_rng(seed), sizes["repeats"]
    seen = []
    for _ in range(repeats):
        grams = kernels(one, sizes["samples"], sizes["probes"], outputs, sizes["a_third"], rng)
        seen.append(effects(np.arange(len(grams)), grams.mean(1), grams))
    rows = []
    for name in one.statistics:
        noisy, clean = ([table[name, end] for table in seen] for end in ("noisy", "clean"))
        rows.append(
            {
                "statistic": name,
                "falls": _share(noisy, FALLS),
                "rises": _share(clean, RISES) if one.risen else np.nan,
                "absent": (_share(noisy, ABSENT) + _share(clean, ABSENT)) / 2,
                "wrong_way": (_share(noisy, RISES) + _share(clean, FALLS)) / 2,
                "effect_noisy": float(np.mean([found.effect for found in noisy])),
                "effect_clean": float(np.mean([found.effect for found in clean])),
                "repeats": repeats,
            }
        )
    return rows


def _share(found: list[Effect], word: str) -> float:
    return sum(one.word == word for one in found) / len(found)


def cells(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Populations × sizes: at the margin, where every definite word is wrong, and at the factor that must be found."""
    sizes = [*config["found"], *({"factor": math.exp(THRESHOLD)} | one for one in config["margin"])]
    return [{"population": name} | one for one in sizes for name in config["populations"]]


def words(config: dict[str, Any], file: Path) -> pd.DataFrame:
    """All cells; those that the file has are not computed again."""
    kept = pd.read_csv(file) if file.exists() else pd.DataFrame()
    for cell in cells(config):
        labels = {name: cell[name] for name in KEYS} | {"factor": round(cell["factor"], 4)}
        if len(kept) and (kept[list(KEYS)] == pd.Series(labels)).all(axis=1).any():
            continue
        rows = []
        for one in planted(cell["population"], cell["factor"], cell["samples"], config["expectation_draws"]):
            seed = zlib.crc32(json.dumps([labels, one.statistics]).encode())
            rows += [labels | row for row in words_of(one, cell, config["outputs"], seed)]
        kept = pd.concat([kept, pd.DataFrame(rows).round(4)], ignore_index=True)
        write_text(file, kept.to_csv(index=False))
        print(*labels.values(), flush=True)
    return kept


def report(found: pd.DataFrame, new: pd.DataFrame, over_seeds: pd.DataFrame) -> str:
    """What the README quotes."""
    wrong = ["falls", "rises", "absent"]
    margin = found[found["factor"] < 1.2]
    error = np.sqrt(0.05 * 0.95 / margin["repeats"].to_numpy())[:, None]
    worst = margin.groupby(["population", "samples", "probes"], sort=False)[wrong].max().mul(100).round(1)
    planted = found[found["factor"] > 1.2].pivot(
        index="statistic", columns=["samples", "population"], values=["falls", "rises"]
    )
    return "\n".join(
        [
            "Wrong words at the margin (x1.1), %, worst statistic:",
            worst.to_string(),
            f"\n{int((margin[wrong] > 0.05).sum().sum())} of {margin[wrong].size} cells above 5%, "
            f"{int((margin[wrong] > 0.05 + 2 * error).sum().sum())} by more than two standard errors",
            "\nx1.5 found, %:",
            planted.mul(100).round(1).T.to_string(),
            "\nUntrained networks called learned, %:",
            new.to_string(index=False),
            "\nRecipes, smooth random curves, %:",
            over_seeds.to_string(index=False),
        ]
    )


if __name__ == "__main__":
    settings = json.loads((HERE / "config.json").read_text())
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    curves = recipes(settings["curves"])
    write_text(results / "curves.csv", curves.to_csv(index=False, float_format="%.4g"))
    untrained = learned(settings["untrained"])
    write_text(results / "untrained.csv", untrained.to_csv(index=False, float_format="%.4g"))
    text = report(words(settings, results / "words.csv"), untrained, curves)
    write_text(results / "calibration.txt", text + "\n")
    print(text)
