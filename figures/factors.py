"""Kernel, features and quality of small networks by optimizer, weight rule and prior: a point a seed.

Reads analysis/factors/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkdiag import provenance
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "factors" / "results"
PICTURE = ROOT / "figures" / "rendered" / "factors.png"
# Column of cells.csv → what it is.
PANELS = {
    "rank_noisy": "effective rank of the kernel, noisy third",
    "centred_rank_noisy": "without the shared answer",
    "features_rank_noisy": "rank of the features, noisy third",
    "quality": "Fréchet distance of samples (pixels)",
    "loss": "held-out loss, mean over noise levels",
}
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW", "muon": "Muon"}
RULES = {"constant": "constant", "erd": "ERD", "min_snr": "min-SNR"}
PRIOR = {False: "without prior", True: "with prior"}


def draw(results: Path, out: Path) -> None:
    """Read cells.csv of `results`; write the picture."""
    cells = pd.read_csv(results / "cells.csv", keep_default_na=False, na_values=[""])
    with theme.applied("light"):
        figure = Figure(figsize=(3.3 * len(PANELS), 3.6), layout="constrained")
        for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            panel(axes, cells, name, title)
        picture = to_bytes(figure, "png", dpi=130)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def panel(axes: Axes, cells: pd.DataFrame, name: str, title: str) -> None:
    """One measure: seeds as points, their mean as a dash."""
    looks = style.lines(PRIOR.values())
    places, labels = [], []
    for group, optimizer in enumerate(OPTIMIZERS):
        for number, rule in enumerate(RULES):
            place = group * (len(RULES) + 1) + number
            places.append(place)
            labels.append(f"{OPTIMIZERS[optimizer]}, {RULES[rule]}")
            for prior, label in PRIOR.items():
                chosen = (
                    (cells["optimizer"] == optimizer) & (cells["rule"] == rule) & (cells["prior"] == prior)
                )
                values, look = cells.loc[chosen, name].to_numpy(), looks[label]
                x = place + (0.18 if prior else -0.18)
                axes.plot(np.full(len(values), x), values, look.marker, color=look.colour, ms=4, alpha=0.6)
                axes.plot(
                    x,
                    values.mean(),
                    "_",
                    color=look.colour,
                    ms=12,
                    mew=2,
                    label=label if place == 0 else None,
                )
    if name != "features_rank_noisy":
        log_axis(axes, "y")
    axes.set_xticks(places, labels, rotation=90, fontsize=7)
    axes.set_title(title, loc="left", fontsize=9)
    if name == "quality":
        axes.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    draw(options.results, options.out)


if __name__ == "__main__":
    main()
