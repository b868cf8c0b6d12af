"""Does training with ERD weights give a better network: rules beside the constant one, by quality and by held-out loss.

python figures/erd.py reads analysis/erd/results.
"""

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
RESULTS = ROOT / "analysis" / "erd" / "results"
TITLES = {
    "quality": "distance of samples to held-out data",
    "loss": "held-out loss, unweighted, of the target",
}
TARGETS = {"epsilon": "ε", "x0": "x0", "v": "v", "flow": "flow"}
RULES = {"erd": "ERD", "min_snr_5": "min-SNR 5", "soft_min_snr_5": "soft min-SNR 5", "p2_1_1": "P2(1, 1)"}
RULES |= {"p2_1_half": "P2(1, ½)", "bayes": "recoverable share", "edm2": "learned u(σ)", "gsnr": "GSNR"}


def draw(results: Path, out: Path) -> None:
    """A row a data set and a column a measure: change against the constant rule, with 95% intervals over seeds."""
    found = {path.parent.name: pd.read_csv(path) for path in sorted(results.glob("*/differences.csv"))}
    with theme.applied("light"):
        figure = Figure(figsize=(13, 1 + 3.6 * len(found)), layout="constrained")
        panels = figure.subplots(len(found), len(TITLES), squeeze=False)
        for row, (data, table) in zip(panels, found.items(), strict=True):
            # The sweep over learning rates has fewer rules than the study's own rate.
            rates = table.groupby("learning_rate")["rule"].nunique()
            table = table[table["learning_rate"] == rates.idxmax()]
            for axes, measure in zip(row, TITLES, strict=True):
                draw_changes(axes, table[table["measure"] == measure])
                axes.set_title(f"{data}: {TITLES[measure]}")
        picture = to_bytes(figure, "png", dpi=130)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def draw_changes(axes: Axes, table: pd.DataFrame) -> None:
    """Change of each rule in percent of the constant rule's mean; a group a rule, a mark a target."""
    rules = list(dict.fromkeys(table["rule"]))
    targets = list(dict.fromkeys(table["target"]))
    for index, target in enumerate(targets):
        part = table[table["target"] == target].set_index("rule")
        scale = 100 / part["constant"]
        place = [rules.index(rule) + 0.18 * (index - (len(targets) - 1) / 2) for rule in part.index]
        middle = part["difference"] * scale
        reach = [middle - part["low"] * scale, part["high"] * scale - middle]
        axes.errorbar(
            middle,
            place,
            xerr=reach,
            fmt="o",
            ms=4,
            capsize=2,
            color=style.line(target).colour,
            label=f"{TARGETS[target]} ({part['seeds'].max()} seeds)",
        )
    axes.axvline(0, color=theme.current().muted, lw=1)
    axes.set_yticks(range(len(rules)), [RULES.get(rule, rule) for rule in rules])
    axes.invert_yaxis()
    if len(table):
        most = 1.7 * (table["difference"] / table["constant"]).abs().max() * 100 + 1
        axes.set_xlim(-most, most)
    axes.set_xlabel("change against the constant rule, % (left is better)")
    axes.legend(title="target", loc="best")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "erd.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
    print(chosen.out)


if __name__ == "__main__":
    main()
