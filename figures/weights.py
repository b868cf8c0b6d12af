"""Loss weights in three pictures: all rules on one target, what they amount to, and measured beside closed form.

python figures/weights.py reads analysis/weights/results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ntkdiag as nd
from ntkdiag import provenance
from ntkdiag.report.drawing import theme
from ntkdiag.report.figures.effective import draw_effective_weights
from ntkdiag.report.figures.weights import all_rules, draw_weights
from ntkdiag.report.render import to_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "analysis" / "weights" / "results"
SCHEDULE = nd.schedules.cosine()
MEASURED = ("bayes", "gsnr", "learnability", "contamination")


def draw(results: Path, out: Path) -> None:
    """Read the tables of `results`; write the picture."""
    target = json.loads((results / "study.json").read_text())["config"]["target"]
    tables = {f"measured: {score}": nd.WeightTable.load(results / f"{score}.csv") for score in MEASURED}
    first = next(iter(tables.values())).log_snr
    wide = np.linspace(-10, 10, 401)
    near = np.linspace(first[0].item() - 0.5, first[-1].item() + 0.5, 401)
    closed = {name: nd.weights.rule(name, target, SCHEDULE) for name in ("erd", "min_snr")}
    with theme.applied("light"):
        figure = Figure(figsize=(17, 5), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        draw_weights(left, all_rules(target, SCHEDULE), wide, SCHEDULE)
        left.set_title(f"Every rule on {target}, cosine sampling")
        draw_effective_weights(middle, all_rules(target, SCHEDULE), target, wide, SCHEDULE)
        middle.set_title("What they amount to: effective weightings")
        draw_weights(right, closed | tables, near, SCHEDULE)
        right.set_title("Measured, with 90% intervals, beside closed form: 2-D mixture")
        picture = to_bytes(figure, "png", dpi=130)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "weights.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
    print(chosen.out)


if __name__ == "__main__":
    main()
