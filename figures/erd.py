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
    "quality": "samples to held-out data",
    "loss_middle": "held-out loss, log-SNR −2 to 2",
    "loss": "held-out loss, all noise levels",
}
TARGETS = {"epsilon": "ε", "x0": "x0", "v": "v", "flow": "flow"}
RULES = {"erd": "ERD", "min_snr_5": "min-SNR 5", "soft_min_snr_5": "soft min-SNR 5", "p2_1_1": "P2(1, 1)"}
RULES |= {"p2_1_half": "P2(1, ½)", "bayes": "recoverable share", "edm2": "learned u(σ)", "gsnr": "GSNR"}
RULES |= {"middle": "more in the middle", "ends": "less in the middle"}


def draw(results: Path, out: Path) -> None:
    """A row a data set and a column a measure: change against the constant rule, with 95% intervals over seeds."""
    found = {path.parent.name: pd.read_csv(path) for path in sorted(results.glob("*/differences.csv"))}
    with theme.applied("light"):
        heights = [1.3 + 0.45 * table["rule"].nunique() for table in found.values()]
        figure = Figure(figsize=(14, sum(heights)), layout="constrained")
        panels = figure.subplots(len(found), len(TITLES), squeeze=False, height_ratios=heights)
        for row, (data, table) in zip(panels, found.items(), strict=True):
            # The sweep over learning rates has fewer rules than the study's own rate.
            rates = table.groupby("learning_rate")["rule"].nunique()
            table = table[table["learning_rate"] == rates.idxmax()]
            seeds = " to ".join(map(str, sorted({table["seeds"].min(), table["seeds"].max()})))
            rules = list(dict.fromkeys(table["rule"]))
            for axes, measure in zip(row, TITLES, strict=True):
                draw_changes(axes, table[table["measure"] == measure], rules)
                axes.set_title(f"{data}, {seeds} seeds: {TITLES[measure]}")
            for axes in row[1:]:
                axes.tick_params(labelleft=False)
        marks = {
            text: mark
            for axes in panels.flat
            for mark, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(marks.values(), marks, title="target", loc="outside lower center", ncols=len(marks))
        picture = to_bytes(figure, "png", dpi=130)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance.write_bytes(out, picture)


def draw_changes(axes: Axes, table: pd.DataFrame, rules: list[str]) -> None:
    """Change of each rule in percent of the constant rule's mean; a group a rule, a mark a target."""
    targets = list(dict.fromkeys(table["target"]))
    for index, target in enumerate(targets):
        part = table[table["target"] == target].set_index("rule")
        scale = 100 / part["base"]
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
            label=TARGETS[target],
        )
    _leave_out_the_farthest(axes, table, rules)
    axes.axvline(0, color=theme.current().muted, lw=1)
    axes.set_yticks(range(len(rules)), [RULES.get(rule, rule) for rule in rules])
    axes.set_ylim(len(rules) - 0.5, -0.5)
    axes.set_xlabel("change against the constant rule, % (left is better)")


def _leave_out_the_farthest(axes: Axes, table: pd.DataFrame, rules: list[str]) -> None:
    """Where one change is far from all others, which would be dots beside it: an arrow at the edge, with its number."""
    ends = 100 * table[["low", "high"]].abs().max(axis=1) / table["base"]
    if len(ends) < 2 or ends.nlargest(2).iloc[0] < 2 * ends.nlargest(2).iloc[1]:
        return
    farthest, reach = table.loc[ends.idxmax()], 1.25 * ends.nlargest(2).iloc[1]
    change = 100 * farthest["difference"] / farthest["base"]
    low = min(0.0, *(100 * table["low"].drop(farthest.name) / table["base"].drop(farthest.name)))
    axes.set_xlim((1.1 * low, reach) if change > 0 else (-reach, None))
    axes.annotate(
        f"{change:+.0f}% \N{RIGHTWARDS ARROW}" if change > 0 else f"\N{LEFTWARDS ARROW} {change:+.0f}%",
        (1.0 if change > 0 else 0.0, rules.index(farthest["rule"])),
        xycoords=("axes fraction", "data"),
        ha="right" if change > 0 else "left",
        va="center",
        color=style.line(farthest["target"]).colour,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "rendered" / "erd.png")
    chosen = parser.parse_args()
    draw(chosen.results, chosen.out)
    print(chosen.out)


if __name__ == "__main__":
    main()
