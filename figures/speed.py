"""What one kernel costs beside one training step: seconds and peak memory. Reads analysis/speed/results."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkdiag import provenance
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "speed" / "results"


def draw(results: Path, out: Path) -> None:
    """Read times.csv, memory.csv and ratios.csv of `results`; write the picture."""
    times, memory = pd.read_csv(results / "times.csv"), pd.read_csv(results / "memory.csv")
    ratios = pd.read_csv(results / "ratios.csv")
    memory = memory[memory.way != "nothing"]
    networks = list(dict.fromkeys(times.network))
    with theme.applied("light"):
        figure = Figure(figsize=(9.5, 1.2 + 2.1 * len(networks)), layout="constrained")
        axes = figure.subplots(len(networks), 2, sharex="col", width_ratios=(3, 2), squeeze=False)
        for (left, right), network in zip(axes, networks, strict=True):
            of_times = times[times.network == network]
            of_memory = memory[memory.network == network]
            limits = ratios[ratios.network == network].set_index("ratio").limit
            step = float(of_times.set_index("way").seconds["training step"])
            limit = step * float(limits["time of one probe / training step"])
            ranges(left, of_times, limit)
            left.set_title(f"DiT, {network}: seconds, median and range")
            peak = of_memory.set_index("way").peak_mib["training step"]
            bars(right, of_memory, float(peak * limits["peak memory / training step"]))
            right.set_title("peak memory of the process, GiB")
        axes[0, 0].set_xlim(0, 1.12 * times.slowest.max())  # shared by all rows
        picture = to_bytes(figure, "png", dpi=150)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def ranges(axes: Axes, rows: pd.DataFrame, limit: float) -> None:
    """A row a way: fastest to slowest round, a dot at the median; the limit for one probe as a line."""
    looks = style.lines(["torch.func", "peers", "kernel"])
    for place, (_, row) in enumerate(rows.iterrows()):
        look = looks["torch.func"] if str(row.way).startswith("torch.func") else looks["kernel"]
        colour = style.colour("baseline") if row.way == "training step" else look.colour
        axes.plot([row.fastest, row.slowest], [place, place], color=colour, linewidth=3, alpha=0.35)
        axes.plot(row.seconds, place, "o", color=colour)
        write_number(axes, row.seconds, row.slowest, place)
    axes.axvline(limit, color=theme.current().muted, linestyle=":", linewidth=1.2)
    axes.annotate("limit for one probe", (limit, 1), (4, -11), xycoords=("data", "axes fraction"),
                  textcoords="offset points", color=theme.current().muted, fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(rows)), rows.way)
    axes.set_ylim(len(rows) - 0.4, -0.9)


def bars(axes: Axes, rows: pd.DataFrame, limit: float) -> None:
    """Peak memory a way, and the part that was there before the first call in a lighter shade."""
    looks = style.lines(["torch.func", "peers", "kernel"])
    colours = [style.colour("baseline"), looks["kernel"].colour, looks["torch.func"].colour]
    peak, ready = rows.peak_mib / 1024, rows.ready_mib / 1024
    axes.barh(range(len(rows)), peak, height=0.5, color=colours, alpha=0.85)
    axes.barh(range(len(rows)), ready, height=0.5, color=theme.current().surface, alpha=0.45)
    for place, value in enumerate(peak):
        write_number(axes, value, value, place)
    axes.axvline(limit / 1024, color=theme.current().muted, linestyle=":", linewidth=1.2)
    axes.set_yticks(range(len(rows)), rows.way)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.15)


def write_number(axes: Axes, value: float, x: float, place: int) -> None:
    """A number to the right of x, on a patch of its own so that no line runs through it."""
    patch = {"facecolor": theme.current().surface, "edgecolor": "none", "pad": 1.0}
    axes.annotate(f"{value:.2f}", (x, place), (6, -3), textcoords="offset points", bbox=patch, zorder=4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "speed.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
