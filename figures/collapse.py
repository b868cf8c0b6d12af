"""Ranks, strength and contamination against log-SNR, before, during and after training. Reads analysis/collapse/results."""

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
from ntkdiag.report.drawing.axes import log_axis, log_snr_axis
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "collapse" / "results"
TARGET_NAMES = {"epsilon": "ε network", "x0": "x0 network", "v": "v network"}
ROWS = (
    ("effective_rank", "effective rank of the full kernel", False),
    ("centred_effective_rank", "the same without\nthe shared answer", False),
    ("shared_share", "share of the shared answer", False),
    ("trace", "mean kernel (trace / N·D)", True),
    ("contamination", "share of gradient energy\nthat is Bayes noise", False),
)


def draw(results: Path, out: Path) -> None:
    """Read buckets.csv of `results`; write the picture."""
    table = pd.read_csv(results / "buckets.csv")
    steps = sorted(table["step"].unique())
    with theme.applied("light"):
        figure = Figure(figsize=(10.5, 12.4), layout="constrained")
        grid = figure.subplots(len(ROWS), len(TARGET_NAMES), sharex=True, sharey="row")
        for column, (name, label) in enumerate(TARGET_NAMES.items()):
            part = table[table["target"] == name]
            for row, (what, title, logarithmic) in enumerate(ROWS):
                statistic(grid[row, column], part, what, steps)
                if logarithmic:
                    log_axis(grid[row, column])
                if column == 0:
                    grid[row, column].set_ylabel(title)
            grid[0, column].set_title(label)
            log_snr_axis(grid[-1, column], part["log_snr"].to_numpy())
        lines = grid[0, 0].get_lines()
        names = [f"{line.get_label()} steps" for line in lines]
        figure.legend(lines, names, loc="outside upper right", ncols=len(names), frameon=False, fontsize=9)
        seeds = table["seed"].nunique()
        figure.suptitle(
            f"2-D mixture of eight modes, MLP 3×128: mean of {seeds} seeds, 90% band",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        picture = to_bytes(figure, "png", dpi=150)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def statistic(axes: Axes, part: pd.DataFrame, what: str, steps: list[int]) -> None:
    """One statistic over log-SNR, a line a training step; the untrained network in the control's colour."""
    for place, step in enumerate(steps):
        rows = part[part["step"] == step].pivot(index="log_snr", columns="seed", values=what)
        mean, count = rows.mean(axis=1), rows.shape[1]
        reach = quantile(0.9, count - 1) * rows.std(axis=1) / np.sqrt(count) if count > 1 else 0 * mean
        if step == 0:
            look = style.line("untrained")
            colour, dashes, alpha = look.colour, look.dashes, 1.0
        else:
            colour, dashes, alpha = style.colour("trained"), "-", 0.35 + 0.65 * place / (len(steps) - 1)
        axes.plot(
            mean.index, mean, color=colour, linestyle=dashes, alpha=alpha, label=str(step), linewidth=1.8
        )
        axes.fill_between(
            mean.index, mean - reach, mean + reach, color=colour, alpha=0.12 * alpha, linewidth=0
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "collapse.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
