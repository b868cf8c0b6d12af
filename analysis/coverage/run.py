"""Do nominal 90% intervals cover 90%? Kernels and gradients from populations with known answers; see README.md."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.coverage.cases import Case, every_case
from ntkdiag.provenance import write_text

HERE = Path(__file__).parent
LOWEST, HIGHEST = 0.87, 0.93
KEYS = ["case", "population", "norms", "outputs", "samples"]


def tried(case: Case) -> list[dict[str, Any]]:
    """Coverage of each interval of a case, a row a statistic; intervals that are not given are left out."""
    rng = np.random.default_rng(zlib.crc32(json.dumps(case.labels).encode()))
    found = [case.trial(rng) for _ in range(case.repeats)]
    rows = []
    for name, answer in case.answers.items():
        ends = np.array([[one[name].low, one[name].high, one[name].value] for one in found])
        given = np.isfinite(ends[:, :2]).all(1)
        low, high, value = ends[given].T
        rows.append(
            case.labels
            | {
                "statistic": name,
                "answer": answer,
                "mean_value": value.mean() if given.any() else np.nan,
                "given": given.mean(),
                "coverage": ((low <= answer) & (answer <= high)).mean() if given.any() else np.nan,
                "missed_above": (low > answer).mean() if given.any() else np.nan,
                "missed_below": (high < answer).mean() if given.any() else np.nan,
                "mean_width": (high - low).mean() if given.any() else np.nan,
                "repeats": case.repeats,
            }
        )
    return rows


def reason(row: pd.Series) -> str:
    """Why a cell lies outside 87 … 93%; empty inside."""
    if not row["given"] or LOWEST <= row["coverage"] <= HIGHEST:
        return ""
    counted = row["given"] * row["repeats"]
    nearest = LOWEST if row["coverage"] < LOWEST else HIGHEST
    if abs(row["coverage"] - nearest) <= 2 * np.sqrt(nearest * (1 - nearest) / counted):
        return "within the error of the repeats"
    if row["statistic"] == "gradient_cosine" and row["given"] < 0.95:
        return "selected: only the draws in which the signal stands out give a number"
    if row["coverage"] > HIGHEST:
        if row["case"] == "gradient" and row["population"].endswith("GSNR 0"):
            return "no signal: the first-order part of the error vanishes, the jackknife overstates the rest"
        if row["population"].startswith("flat"):
            return "flat: the first-order part of the error vanishes, the jackknife overstates the rest"
        return "too wide: the correction for tails that samples do not show is not needed here"
    if row["outputs"] == "4":
        return "eight probes of four outputs do not show how skewed their error is"
    if row["norms"] == "heavy":
        return "most draws lack the large norms on which the number depends"
    return "too short"


def ranges(table: pd.DataFrame) -> pd.DataFrame:
    """Lowest and highest coverage of each statistic, in %, by number of samples and norms; flat spectra apart."""
    flat = table["population"].str.startswith("flat")
    nothing = table["population"].str.endswith("GSNR 0")
    kind = np.where(flat, ", flat", np.where(nothing, ", no signal", ""))
    named = table.assign(statistic=table["case"] + ": " + table["statistic"] + kind)
    groups = named.groupby(["statistic", "samples", "norms"], sort=False)["coverage"]
    ends = groups.agg(["min", "max"]).dropna().mul(100).round().astype(int).astype(str)
    return (ends["min"] + "–" + ends["max"]).unstack(["samples", "norms"]).fillna("")


def report(table: pd.DataFrame) -> str:
    """The ranges; coverage in %, with an asterisk outside 87 … 93, by case; how many cells those are, by reason."""
    parts = [ranges(table).to_string(), "\n"]
    for case, rows in table.groupby("case", sort=False):
        shown = rows.assign(text=[_cell(row) for _, row in rows.iterrows()])
        grid = shown.pivot(index=KEYS[1:], columns="statistic", values="text").reindex(
            columns=rows["statistic"].unique()
        )
        order = pd.MultiIndex.from_frame(rows[KEYS[1:]].drop_duplicates())
        parts += [f"\n{case}\n", grid.reindex(order).fillna("").to_string(), "\n"]
    outside = table[table["reason"] != ""]
    parts.append(f"\n{len(outside)} of {len(table)} cells lie outside 87 to 93%:\n")
    parts.append(
        outside.groupby(["reason", "statistic"])["coverage"].agg(["size", "min", "max"]).round(3).to_string()
    )
    return "".join(parts)


def _cell(row: pd.Series) -> str:
    if np.isnan(row["coverage"]):
        return "–"
    return f"{100 * row['coverage']:.0f}" + ("*" if row["reason"] else "")


def study(config: dict[str, Any]) -> pd.DataFrame:
    """Every case of the study, one row a statistic."""
    rows: list[dict[str, Any]] = []
    for case in every_case(config):
        rows += tried(case)
        print(*case.labels.values(), flush=True)
    table = pd.DataFrame(rows)
    return table.assign(reason=[reason(row) for _, row in table.iterrows()])


if __name__ == "__main__":
    found = study(json.loads((HERE / "config.json").read_text()))
    write_text(HERE / "results" / "coverage.csv", found.to_csv(index=False, float_format="%.4g"))
    text = report(found)
    write_text(HERE / "results" / "coverage.txt", text + "\n")
    print(text)
