"""How far kernels describe training, and how they change along it, in four small networks.

Reads analysis/trust/results.
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
from ntkdiag.report.drawing.step_map import draw_step_map
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "trust" / "results"
PICTURE = ROOT / "figures" / "rendered" / "trust.png"


def draw(results: Path, out: Path) -> None:
    """Read linearity_steps.csv and drift.csv of `results`; write the picture."""
    steps, drift = pd.read_csv(results / "linearity_steps.csv"), pd.read_csv(results / "drift.csv")
    networks = list(drift.groupby(["data", "target"], sort=False).groups)
    with theme.applied("light"):
        figure = Figure(figsize=(3.2 * (1 + len(networks)), 3.2), layout="constrained")
        first, *others = figure.subplots(1, 1 + len(networks))
        errors(first, steps)
        for axes, (data, target) in zip(others, networks, strict=True):
            own = drift[(drift["data"] == data) & (drift["target"] == target)]
            draw_step_map(axes, own, "effective_rank", f"{data}, {target}", (0.0, None))
        picture = to_bytes(figure, "png", dpi=150)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def errors(axes: Axes, steps: pd.DataFrame) -> None:
    """Error of the linear model against the number of real steps, the mean over noise levels and continuations."""
    means = steps.groupby(["data", "target", "step"], sort=False)["error"].mean().reset_index()
    names = (means["data"] + ", " + means["target"]).rename("network")
    looks = style.lines(names.unique())
    for name, own in means.groupby(names, sort=False):
        look = looks[str(name)]
        axes.plot(own["step"], own["error"], marker=look.marker, label=str(name), **look.plot)
    axes.axhline(0.1, color="grey", lw=1)
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlabel("real optimizer steps")
    axes.set_ylabel("error / linear change of the outputs")
    axes.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    draw(options.results, options.out)


if __name__ == "__main__":
    main()
