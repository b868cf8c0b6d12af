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


def panels(results: Path) -> dict[str, str]:
    """File → title, in the order of the table: of each data set the real ones first, with the floor, then its runs."""
    found: dict[str, str] = {}
    for row in pd.read_csv(results / "quality.csv").to_dict("records"):
        found.setdefault(f"real-{row['data']}", f"held-out {row['data']}; floor of FD {row['floor']:.2g}")
        found[row["run"]] = f"{row['run']}, {row['steps']:,} steps: FD {row['fd']:.2g}"
    return found


def draw(results: Path, out: Path) -> None:
    """A panel of real samples of each data set, and one for each run, with its Fréchet distance."""
    titles = panels(results)
    with theme.applied("light"):
        figure = Figure(figsize=(4 * len(titles), 3), layout="constrained")
        for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
            axes.imshow(whole(np.load(results / f"{name}.npy")), cmap="gray", vmin=0, vmax=255)
            axes.set_title(title)
            axes.set_axis_off()
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
