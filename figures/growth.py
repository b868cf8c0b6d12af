"""Time of a kernel against P, N, T and R, with fitted exponents. Reads analysis/growth/results."""

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
RESULTS = ROOT / "analysis" / "growth" / "results"
LABELS = {
    "P by width": "P, parameters (width varies)",
    "P by depth": "P, parameters (depth varies)",
    "N": "N, samples",
    "T": "T, tokens",
    "R": "R, probes",
}


def draw(results: Path, out: Path) -> None:
    """Read times.csv and exponents.csv of `results`; write the picture."""
    times, fits = pd.read_csv(results / "times.csv"), pd.read_csv(results / "exponents.csv")
    axes_of = list(dict.fromkeys(times.axis))
    with theme.applied("light"):
        figure = Figure(figsize=(10.5, 6.2), layout="constrained")
        axes = figure.subplots(2, 3)
        for panel, axis in zip(axes.flat, axes_of, strict=False):
            growth(panel, times[times.axis == axis], fits[fits.axis == axis])
            panel.set_xlabel(LABELS[axis])
        for panel in axes.flat[len(axes_of) :]:
            panel.set_axis_off()
        for row in axes:
            row[0].set_ylabel("seconds")
        picture = to_bytes(figure, "png", dpi=150)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def growth(axes: Axes, times: pd.DataFrame, fits: pd.DataFrame) -> None:
    """Seconds against size for each way, on logarithmic axes, with the exponent of the three largest points."""
    looks = style.lines(["torch.func", "peers", "kernel"]) | {"training step": style.line("baseline")}
    last = fits[fits.points == "three largest"].set_index("way")
    for way, group in times.groupby("way", sort=False):
        ordered, look = group.sort_values("size"), looks[str(way)]
        slope, error = last.exponent[way], last.standard_error[way]
        exponent = f"{slope:.2f}" if np.isnan(error) else f"{slope:.2f} ± {error:.2f}"
        axes.plot(
            ordered["size"], ordered.seconds, marker=look.marker, label=f"{way}  {exponent}", **look.plot
        )
    axes.set_yscale("log")
    axes.set_ylim(top=5 * times.seconds.max())  # room for the legend
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.legend(
        loc="upper left", fontsize=8, title="exponent, three largest", title_fontsize=8, alignment="left"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "growth.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
