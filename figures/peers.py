"""The same kernel by other tools: seconds, peak memory, and the error of approximate ones. Reads analysis/peers/results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkdiag import provenance
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "peers" / "results"
NETWORKS = {
    "mlp": "MLP, N=64",
    "unet": "U-Net, N=16",
    "dit4": "DiT patch 4, N=32",
    "dit2": "DiT patch 2, N=16",
}
NAMES = {
    "step": "training step (no kernel)",
    "ntkdiag": "ntkdiag, streaming",
    "torch_func": "torch.func",
    "torch_func_written_out": "torch.func, written-out attention",
    "nngeometry": "nngeometry",
    "vivit": "vivit (BackPACK)",
    "kronfluence": "kronfluence",
    "opacus": "Opacus",
    "neural_tangents_contraction": "neural-tangents, contraction",
    "neural_tangents_structured": "neural-tangents, structured",
}
# Way to an approximate kernel → its name, its colour's name, and the mark of its points.
APPROXIMATE = {
    "sketch": ("ntkdiag, sketch", "ntkdiag", "o"),
    "sketch_later": ("ntkdiag, sketch in later calls", "ntkdiag", "s"),
    "dattri_logra": ("dattri, LoGra", "peers", "D"),
    "dattri_mask": ("dattri, random mask", "peers", "v"),
    "trak": ("TRAK", "peers", "^"),
}
# A kernel further than this from the float64 truth is another kernel: tuned here, far above rounding.
ANOTHER_KERNEL = 1e-4


def draw(results: Path, out: Path) -> None:
    """Read peers.csv and projections.csv of `results`; write the picture."""
    table, projections = (pd.read_csv(results / f"{name}.csv") for name in ("peers", "projections"))
    networks = [name for name in NETWORKS if name in set(table.network)]
    with theme.applied("light"):
        figure = Figure(figsize=(2.4 + 2.3 * len(networks), 10), layout="constrained")
        axes = figure.subplots(3, len(networks), sharey="row", squeeze=False)
        for column, network in enumerate(networks):
            rows = table[table.network == network].set_index("peer").reindex(list(NAMES))
            seconds(axes[0, column], rows)
            memory(axes[1, column], rows)
            errors(axes[2, column], projections[projections.network == network], samples_of(network))
            axes[0, column].set_title(NETWORKS[network])
        for row in axes[:2]:
            row[0].set_ylim(len(NAMES) - 0.4, -0.6)
        axes[2, 0].set_ylabel("error of a correlation coefficient")
        handles, labels = axes[2, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
        picture = to_bytes(figure, "png", dpi=150)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def seconds(axes: Axes, rows: pd.DataFrame) -> None:
    """Warm as a dot, cold as a ring at the end of a thin line."""
    for place, (peer, row) in enumerate(rows.iterrows()):
        if row.status == "ok":
            colour = colour_of(str(peer), row)
            axes.plot([row.warm_seconds, row.cold_seconds], [place] * 2, color=colour, linewidth=1)
            axes.plot(row.cold_seconds, place, "o", color=colour, markerfacecolor=theme.current().surface)
            axes.plot(row.warm_seconds, place, "o", color=colour)
    finish(axes, rows, rows.warm_seconds, "seconds: ● warm, ○ cold", free=0.98)


def memory(axes: Axes, rows: pd.DataFrame) -> None:
    """Peak of the process."""
    for place, (peer, row) in enumerate(rows.iterrows()):
        if row.status == "ok":
            axes.plot(row.peak_mib / 1024, place, "s", color=colour_of(str(peer), row))
    finish(axes, rows, rows.peak_mib / 1024, "peak memory of the process, GiB", free=0.04)


def samples_of(network: str) -> int:
    """N of the approximate kernels of a network."""
    config = json.loads((RESULTS.parent / "config.json").read_text())
    return config["projections"]["full"]["samples"].get(network, config["full"][network]["samples"])


def errors(axes: Axes, rows: pd.DataFrame, samples: int) -> None:
    """Error against processor time of kernels from short rows; where no error was measured, that of the sketch it equals."""
    if rows.empty:
        axes.set_axis_off()
        return
    looks, quiet = style.lines(["torch.func", "peers", "ntkdiag"]), theme.current().muted
    sketches = rows[rows.way == "sketch"].set_index("length").correlation_error
    axes.axvline(1, color=quiet, linestyle=":", linewidth=1, label="training step")
    exact = rows[rows.way == "ntkdiag"].steps.item()
    axes.axvline(exact, color=looks["ntkdiag"].colour, linestyle="--", linewidth=1, label="ntkdiag, exact")
    for way, (name, colour, mark) in APPROXIMATE.items():
        found = rows[(rows.way == way) & (rows.status == "ok") & (rows.covered == rows.parameters)]
        error = found.correlation_error.fillna(found.equal_to.map(sketches))
        axes.plot(
            found.steps, error, mark, color=looks[colour].colour, linestyle="-", linewidth=0.8, label=name
        )
    axes.set_xlabel(f"processor time in training steps, N={samples}", fontsize=8.5)
    axes.margins(0.15)
    log_axis(axes, "x")
    log_axis(axes, "y")


def colour_of(peer: str, row: pd.Series) -> str:
    """The training step, this package and torch.func as in every study; other tools alike, grey if the kernel differs."""
    looks = style.lines(["torch.func", "peers", "ntkdiag"])
    if peer == "step":
        return style.colour("baseline")
    if peer == "ntkdiag":
        return looks["ntkdiag"].colour
    if peer.startswith("torch_func"):
        return looks["torch.func"].colour
    return theme.current().muted if row.relative_error > ANOTHER_KERNEL else looks["peers"].colour


def finish(axes: Axes, rows: pd.DataFrame, values: pd.Series, label: str, free: float) -> None:
    """Names, a line at the training step, and a word where a peer gives no kernel or another one.

    Args:
        axes: Where the values are drawn.
        rows: Peers in order.
        values: By peer.
        label: Of the axis.
        free: Side on which no value is, as a share of the width: where the error is written if the kernel differs.
    """
    axes.set_xlabel(label, fontsize=8.5)
    axes.set_yticks(range(len(rows)), [NAMES[str(peer)] for peer in rows.index])
    axes.axvline(values["step"], color=theme.current().muted, linestyle=":", linewidth=1)
    axes.margins(x=0.15)
    log_axis(axes, "x")
    patch = {"facecolor": theme.current().surface, "edgecolor": "none", "pad": 1.0}
    quiet: dict[str, Any] = {"color": theme.current().muted, "fontsize": 8, "va": "center", "bbox": patch}
    for place, (_, row) in enumerate(rows.iterrows()):
        if row.status != "ok":
            word = "cannot" if row.status == "cannot" else "not run"
            axes.text(0.04, place, word, transform=axes.get_yaxis_transform(), **quiet)
        elif row.relative_error > ANOTHER_KERNEL:
            error = f"{100 * row.relative_error:.1g}% off"
            side = "left" if free < 0.5 else "right"
            axes.text(
                free, place, error, ha=side, transform=axes.get_yaxis_transform(), **quiet | {"fontsize": 7}
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "peers.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
