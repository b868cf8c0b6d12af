"""From cells to answers: paired differences to the constant rule, with Holm's correction, and the ties."""

from __future__ import annotations

import pandas as pd
from scipy import stats

from analysis.erd.rules import CONSTANT, TIES
from ntkdiag.confidence import quantile

PROBLEM = ["data", "target"]


def differences(cells: pd.DataFrame) -> pd.DataFrame:
    """For each rule, its value minus the constant rule's of the same seed: mean, 95% interval, p of the t test and Holm's.

    Holm's correction (1979) is over the rules of one data set, target and measure.
    """
    rows = []
    for problem, part in cells.groupby(PROBLEM, sort=False):
        for measure in ("quality", "loss"):
            wide = part.pivot(index="seed", columns="rule", values=measure)
            found = []
            for rule in wide.columns.drop(CONSTANT):
                change = (wide[rule] - wide[CONSTANT]).dropna()
                if len(change) < 2:
                    continue
                reach = quantile(0.95, len(change) - 1) * change.std() / len(change) ** 0.5
                found.append(
                    {**dict(zip(PROBLEM, problem, strict=True)), "measure": measure, "rule": rule, "seeds": len(change),
                     "constant": wide[CONSTANT].mean(), "difference": change.mean(), "low": change.mean() - reach,
                     "high": change.mean() + reach, "p": stats.ttest_1samp(change, 0.0).pvalue}
                )  # fmt: skip
            for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
                rows.append(row | {"p_holm": corrected})
    return pd.DataFrame(rows)


def holm(values: list[float]) -> list[float]:
    """Corrected p-values (Holm 1979), in the order given."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, values[index] * (len(values) - rank)))
        corrected[index] = largest
    return corrected


def ties(cells: pd.DataFrame) -> pd.DataFrame:
    """For each pair of rules that are one function, the largest relative difference of the held-out loss over seeds."""
    rows = []
    for (data, target), part in cells.groupby(PROBLEM, sort=False):
        if target not in TIES:
            continue
        left, right = TIES[target]
        wide = part.pivot(index="seed", columns="rule", values="loss")
        if {left, right} <= set(wide.columns):
            gap = ((wide[left] - wide[right]) / wide[right]).abs().max()
            rows.append({"data": data, "target": target, "rules": f"{left} = {right}", "largest_gap": gap})
    return pd.DataFrame(rows)
