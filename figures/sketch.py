"""What a sketched kernel costs against N, beside the exact one and a training step, and ranks of thousands of samples.

Reads analysis/sketch/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkdiag import provenance
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "sketch" / "results"


def draw(results: Path, out: Path) -> None:
    """Read times.csv, growth.csv, ranks.csv and fashion.csv of `results`; write the picture."""
    times, fits, ranks, fashion = (
        pd.read_csv(results / f"{name}.csv") for name in ("times", "growth", "ranks", "fashion")
    )
    with theme.applied("light"):
        figure = Figure(figsize=(14.0, 3.8), layout="constrained")
        cost, digits, pictures = figure.subplots(1, 3)
        growth(cost, times, fits)
        curves(digits, ranks, "Digits")
        curves(pictures, fashion, "Fashion-MNIST")
        picture = to_bytes(figure, "png", dpi=150)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def growth(axes: Axes, times: pd.DataFrame, fits: pd.DataFrame) -> None:
    """Milliseconds of one processor for each sample, against N: flat where the cost is linear."""
    names = ["sketch", "exact"]
    looks = style.lines(names) | {"training step": style.line("baseline")}
    exponents = fits.set_index("way").exponent
    for way, group in times.groupby("way", sort=False):
        look = looks[str(way)]
        label = f"{way}, N^{exponents[way]:.2f}"
        axes.plot(group.N, 1000 * group.a_sample, marker=look.marker, label=label, **look.plot)
    axes.set_ylim(0, 1.15 * 1000 * times.a_sample.max())
    log_axis(axes, "x")
    axes.set_xlabel("N, samples")
    axes.set_ylabel("milliseconds of a processor, a sample")
    axes.set_title("One probe of a DiT")
    axes.legend(fontsize=8)


def curves(axes: Axes, ranks: pd.DataFrame, data: str) -> None:
    """Effective rank against N, a line for each bucket."""
    levels = sorted(ranks.log_snr.unique())
    looks = style.lines([f"{level:.1f}" for level in levels])
    for level in levels:
        rows = ranks[ranks.log_snr == level]
        look = looks[f"{level:.1f}"]
        axes.plot(rows.N, rows.effective_rank, marker=look.marker, label=f"{level:.1f}", **look.plot)
    log_axis(axes, "x")
    axes.set_xlabel("N, samples")
    axes.set_ylabel("effective rank")
    axes.set_ylim(0, 1.5 * ranks.effective_rank.max())  # room for the legend
    axes.set_title(f"{data}: the rank of a bucket against N")
    axes.legend(fontsize=7, ncols=4, loc="upper left", title="log-SNR", title_fontsize=7)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "sketch.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
