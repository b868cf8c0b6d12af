"""Rank, rank without the shared answer, and its share, by target and training density. Reads analysis/verdicts/results."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkdiag import provenance
from ntkdiag.confidence import quantile
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "verdicts" / "results"
TARGETS = {"epsilon": "ε", "x0": "x0", "v": "v"}
DENSITIES = {"cosine": "trained at the cosine density", "uniform": "uniform", "clean": "N(5, 2²)"}
ROWS = (
    ("effective_rank", "effective rank"),
    ("centred_effective_rank", "effective rank without\nthe shared answer"),
    ("shared_share", "share of the trace\nthat all samples share"),
)


def draw(results: Path, out: Path) -> None:
    """Read buckets.csv of `results`; write the picture, a column a data set and training density."""
    table = pd.read_csv(results / "buckets.csv")
    found = table[table["density"] != "none"][["data", "density"]].drop_duplicates()
    columns = [(data, density) for data in found["data"].unique() for density in DENSITIES]
    columns = [one for one in columns if one in set(found.itertuples(index=False, name=None))]
    with theme.applied("light"):
        figure = Figure(figsize=(1.2 + 2.6 * len(columns), 7.6), layout="constrained")
        grid = figure.subplots(len(ROWS), len(columns), sharex=True, squeeze=False)
        for place, (data, density) in enumerate(columns):
            rows = table[table["data"] == data]
            for row, (name, label) in enumerate(ROWS):
                panel(grid[row, place], rows, density, name)
                if place == 0:
                    grid[row, place].set_ylabel(label)
            grid[0, place].set_title(f"{data}: {DENSITIES[density]}")
            grid[-1, place].set_xticks([-8, -4, 0, 4, 8])
        lines = grid[0, 0].get_lines()
        figure.legend(
            lines,
            [line.get_label() for line in lines],
            loc="outside upper right",
            ncols=len(lines),
            frameon=False,
        )
        figure.supxlabel("log-SNR ln(α²/σ²): noisy inputs on the left, clean ones on the right", fontsize=10)
        seeds = table.loc[table["density"] != "none", "seed"].nunique()
        figure.suptitle(
            f"Mean of {seeds} training seeds, 90% band; grey: untrained", x=0.01, ha="left", fontsize=11
        )
        picture = to_bytes(figure, "png", dpi=130)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def panel(axes: Axes, rows: pd.DataFrame, density: str, name: str) -> None:
    """One statistic over log-SNR, a line a target, beside the untrained networks."""
    look = style.line("untrained")
    curve(axes, rows[rows["density"] == "none"], name, look, "untrained")
    for target, label in TARGETS.items():
        some = rows[(rows["density"] == density) & (rows["target"] == target)]
        curve(axes, some, name, style.line(target), f"{label} network")
    if name == "shared_share":
        axes.set_ylim(0, 1.02)
    else:
        log_axis(axes)


def curve(axes: Axes, rows: pd.DataFrame, name: str, look: style.Line, label: str) -> None:
    """Mean over seeds with a 90% interval of Student."""
    by_seed = rows.pivot(index="log_snr", columns="seed", values=name)
    mean, count = by_seed.mean(axis=1), by_seed.shape[1]
    reach = quantile(0.9, count - 1) * by_seed.std(axis=1) / np.sqrt(count) if count > 1 else 0 * mean
    axes.plot(mean.index, mean, **look.plot, label=label)
    axes.fill_between(mean.index, mean - reach, mean + reach, color=look.colour, alpha=0.18, lw=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "verdicts.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
