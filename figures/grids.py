"""Digits and clothes of every class: real ones, and those that the reference trainer's networks draw.

python figures/grids.py reads analysis/grids/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ntkdiag import provenance
from ntkdiag.report.drawing import theme
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "grids" / "results"
CLASSES = 10


def whole(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pictures [class · shown, H, W] with a column for each class, as one picture."""
    columns = pictures.reshape(CLASSES, -1, *pictures.shape[1:])
    framed = np.pad(columns, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=96)
    return np.block([[framed[column, row] for column in range(CLASSES)] for row in range(framed.shape[1])])


def panels(results: Path) -> list[dict[str, str]]:
    """For each data set, file → title: the real samples first, with the floor, then the runs."""
    rows: dict[str, dict[str, str]] = {}
    for row in pd.read_csv(results / "quality.csv").to_dict("records"):
        name = row["data"]
        found = rows.setdefault(name, {f"real-{name}": f"held-out {name}; floor of FD {row['fd_floor']:.2g}"})
        found[row["run"]] = f"{row['run']}, {row['steps']:,} steps: FD {row['fd']:.2g}"
    return list(rows.values())


def draw(results: Path, out: Path) -> None:
    """A row for each data set: a panel of real samples, and one for each run, with its Fréchet distance."""
    rows = panels(results)
    columns = max(map(len, rows))
    with theme.applied("light"):
        figure = Figure(figsize=(4 * columns, 2.8 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for places, titles in zip(grid, rows, strict=True):
            for axes, (name, title) in zip(places, titles.items(), strict=False):
                axes.imshow(whole(np.load(results / f"{name}.npy")), cmap="gray", vmin=0, vmax=255)
                axes.set_title(title)
        picture = to_bytes(figure, "png", dpi=130)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "grids.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
    print(chosen.out)


if __name__ == "__main__":
    main()
