"""Naive against corrected rank as the number of samples grows. Reads analysis/coverage/results/sweep.csv."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkdiag import provenance
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis
from ntkdiag.report.formatting import number
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "coverage" / "results"
POPULATIONS = {
    "low rank": "8 uneven directions",
    "1/k": "1/k, 50 directions",
    "spiked": "one spike of 20 on 100 flat ones",
}
# row → (naive statistic, its name, corrected statistic, its name)
ROWS = {
    "participation ratio": (
        ("participation_ratio", "of the eigenvalues"),
        ("participation_ratio_pairs", "from pairs of samples"),
    ),
    "effective rank": (
        ("effective_rank", "of the eigenvalues"),
        ("effective_rank_extrapolated", "extrapolated in N"),
    ),
}


def draw(results: Path, out: Path) -> None:
    """Read sweep.csv of `results`; write the picture."""
    table = pd.read_csv(results / "sweep.csv")
    with theme.applied("light"):
        figure = Figure(figsize=(10.5, 6.6), layout="constrained")
        grid = figure.subplots(len(ROWS), len(POPULATIONS), sharex=True)
        for column, (name, title) in enumerate(POPULATIONS.items()):
            for row, (rank, statistics) in enumerate(ROWS.items()):
                ranks(grid[row, column], table[table.population == name], statistics)
                if column == 0:
                    grid[row, column].set_ylabel(rank)
            grid[0, column].set_title(title)
            grid[-1, column].set_xlabel("N, samples")
        for row in grid:
            row[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        figure.suptitle(
            "Lines: medians over fresh samples. Bands: the 90% interval of one measurement, medians of its ends.",
            x=0.01,
            ha="left",
            fontsize=9.5,
        )
        picture = to_bytes(figure, "png", dpi=150)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def ranks(axes: Axes, rows: pd.DataFrame, statistics: tuple[tuple[str, str], ...]) -> None:
    """The naive and the corrected number against N, and the population's value as a line."""
    truth = float(rows[rows.statistic == statistics[0][0]].truth.iloc[0])
    axes.axhline(truth, color=theme.current().ink, linewidth=1.2, linestyle=(0, (4, 2)))
    for (statistic, name), look in zip(statistics, style.lines(["naive", "corrected"]).values(), strict=True):
        part = rows[rows.statistic == statistic].sort_values("samples")
        axes.plot(part.samples, part.value, marker=look.marker, markersize=4.5, label=name, **look.plot)
        axes.fill_between(part.samples, part.low, part.high, color=look.colour, alpha=0.2, linewidth=0)
    axes.annotate(f"population {number(truth)}", (0, truth), (4, -4), xycoords=("axes fraction", "data"),
                  textcoords="offset points", va="top", fontsize=8)  # fmt: skip
    axes.set_ylim(0, 2 * truth)
    log_axis(axes, "x")
    axes.set_xticks(sorted(rows.samples.unique()))
    axes.minorticks_off()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "coverage.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
