"""From cells to answers: paired differences to a rule, steps to a quality, noise levels, learning rates, and the ties."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from analysis.erd.rules import CONSTANT, TIES
from ntkdiag.confidence import quantile
from ntkdiag.process.buckets import Buckets

KEY = ["data", "target", "learning_rate", "seed", "rule"]
PROBLEM = KEY[:3]
MEASURES = (
    "quality", "fd_features", "mmd_features", "sliced_wasserstein", "precision", "recall", "density", "coverage", "loss",
    "loss_middle", "steps_to_quality", "spikes", "largest_norm",
)  # fmt: skip
MIN_SNR = "min_snr_5"
_MIDDLE = 2.0
# Fewest rules over which noise levels are compared.
_FEWEST = 4
_CURVE = re.compile(r"quality_at_(\d+)")


class Thresholds(NamedTuple):
    """The quality that is waited for: the constant rule's mean at `step`; `steps` is the length of the training."""

    step: int
    steps: int


def answers(cells: pd.DataFrame, thresholds: Thresholds, buckets: Buckets) -> dict[str, pd.DataFrame]:
    """All tables that have rows, by name."""
    cells = with_middle(with_steps(cells, thresholds), buckets)
    found = {
        "differences": differences(cells, CONSTANT),
        "against_min_snr_5": differences(cells, MIN_SNR),
        "by_bucket": by_bucket(cells),
        "noise_levels": noise_levels(cells),
        "ties": ties(cells),
        "best_rates": best_rates(cells),
    }
    return {name: table for name, table in found.items() if len(table)}


def with_middle(cells: pd.DataFrame, buckets: Buckets) -> pd.DataFrame:
    """The cells with the column loss_middle: the mean over the buckets whose centers lie within log-SNR −2 and 2."""
    names = [f"loss_bucket_{index}" for index, center in enumerate(buckets.centers) if abs(center) <= _MIDDLE]
    return cells.assign(loss_middle=cells[names].mean(axis=1))


def with_steps(cells: pd.DataFrame, thresholds: Thresholds) -> pd.DataFrame:
    """The cells with the column steps_to_quality: by straight lines between the points of the curve of quality.

    The threshold of a problem is the mean over seeds of the constant rule's quality at one step, which the settings name: no
    other rule has a say. A training that does not reach it counts with its length, which favours it.
    """
    parts = []
    for _, part in cells.groupby(PROBLEM, sort=False):
        own = part[part["rule"] == CONSTANT]
        column = f"quality_at_{thresholds.step}"
        aim = own[column].mean() if column in part else math.nan
        reached = [first_step(_curve(row, thresholds.steps), aim) for row in part.to_dict("records")]
        parts.append(part.assign(threshold=aim, steps_to_quality=reached))
    return pd.concat(parts)


def _curve(row: dict[Any, Any], steps: int) -> list[tuple[int, float]]:
    points = {int(match[1]): row[name] for name in row if (match := _CURVE.fullmatch(str(name)))}
    return sorted((points | {steps: row["quality"]}).items())


def first_step(curve: list[tuple[int, float]], aim: float) -> float:
    """Where the curve first is at most `aim`; its last step where it never is, NaN where the curve has a single point."""
    if len(curve) < 2 or math.isnan(aim) or any(math.isnan(value) for _, value in curve):
        return math.nan
    before: tuple[int, float] | None = None
    for step, value in curve:
        if value <= aim:
            if before is None:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - aim) / (before[1] - value)
        before = step, value
    return float(curve[-1][0])


def differences(cells: pd.DataFrame, base: str) -> pd.DataFrame:
    """For each rule, its value minus the base rule's of the same seed: mean, 95% interval, p of the t test and Holm's.

    Holm's correction (1979) is over the rules of one data set, target, learning rate and measure.
    """
    rows: list[dict[str, Any]] = []
    for problem, part in cells.groupby(PROBLEM, sort=False):
        for measure in (name for name in MEASURES if name in part):
            wide = part.pivot(index="seed", columns="rule", values=measure)
            if base not in wide:
                continue
            found = []
            for rule in (name for name in part["rule"].unique() if name != base):
                row = paired(wide[rule], wide[base])
                if row:
                    found.append(
                        {**dict(zip(PROBLEM, problem, strict=True)), "measure": measure, "rule": rule, **row}
                    )
            for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
                rows.append(row | {"p_holm": corrected})
    return pd.DataFrame(rows)


def by_bucket(cells: pd.DataFrame) -> pd.DataFrame:
    """Held-out loss of each bucket relative to the constant rule's of the same seed, minus 1, the mean over seeds."""
    columns = [name for name in cells if str(name).startswith("loss_bucket_")]
    rows: list[dict[str, Any]] = []
    for problem, part in cells.groupby(PROBLEM, sort=False):
        base = part[part["rule"] == CONSTANT].set_index("seed")[columns]
        for rule, own in part.groupby("rule", sort=False):
            change = (own.set_index("seed")[columns] / base - 1).dropna(how="all")
            if rule != CONSTANT and len(change) > 1:
                rows.append(
                    {
                        **dict(zip(PROBLEM, problem, strict=True)),
                        "rule": rule,
                        "seeds": len(change),
                        **change.mean(),
                    }
                )
    return pd.DataFrame(rows)


def noise_levels(cells: pd.DataFrame) -> pd.DataFrame:
    """For each bucket, the rank correlation over rules of the change of its loss with the change of the samples' distance.

    Both are differences to the constant rule of the same seed, the mean over seeds. Where the correlation is high, rules
    with a lower loss at that noise level have nearer samples. Rules are no random draw, so it has no p.
    """
    rows: list[dict[str, Any]] = []
    losses = [name for name in cells if str(name).startswith("loss")]
    distances = [name for name in ("quality", "fd_features") if name in cells]
    for problem, part in cells.groupby(PROBLEM, sort=False):
        base = part[part["rule"] == CONSTANT].set_index("seed")[losses + distances]
        change = {
            rule: own.set_index("seed")[losses + distances] - base for rule, own in part.groupby("rule")
        }
        several = {rule: own.mean() for rule, own in change.items() if own["loss"].count() > 1}
        mean = pd.DataFrame(several).T.drop(index=CONSTANT, errors="ignore")
        if len(mean) < _FEWEST:
            continue
        about = {**dict(zip(PROBLEM, problem, strict=True)), "rules": len(mean)}
        ranks = mean.corr(method="spearman")
        rows += [about | {"measure": distance, **ranks.loc[distance, losses]} for distance in distances]
    return pd.DataFrame(rows)


def paired(values: pd.Series, base: pd.Series) -> dict[str, float]:
    """Mean of values − base over seeds that have both, with its 95% t interval and p; empty for fewer than two seeds."""
    change = (values - base).dropna()
    if len(change) < 2:
        return {}
    reach = quantile(0.95, len(change) - 1) * change.std() / len(change) ** 0.5
    p = stats.ttest_1samp(change, 0.0).pvalue if change.std() > 0 else float((change == 0).all())
    return {
        "seeds": len(change), "base": base[change.index].mean(), "difference": change.mean(),
        "low": change.mean() - reach, "high": change.mean() + reach, "p": p,
    }  # fmt: skip


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
    for (data, target, rate), part in cells.groupby(PROBLEM, sort=False):
        if target not in TIES:
            continue
        left, right = TIES[target]
        wide = part.pivot(index="seed", columns="rule", values="loss")
        if {left, right} <= set(wide.columns):
            gap = ((wide[left] - wide[right]) / wide[right]).abs().max()
            rows.append(
                {
                    "data": data,
                    "target": target,
                    "learning_rate": rate,
                    "rules": f"{left} = {right}",
                    "largest_gap": gap,
                }
            )
    return pd.DataFrame(rows)


def best_rates(cells: pd.DataFrame) -> pd.DataFrame:
    """Quality of each rule at the learning rate that suits it best, minus that of the constant rule at its own best.

    Only rules and seeds for which more than one rate was trained. The best rate is that of the smallest mean over seeds.
    """
    rows: list[dict[str, Any]] = []
    for (data, target), part in cells.groupby(PROBLEM[:2], sort=False):
        swept = part.groupby(["rule", "seed"])["learning_rate"].transform("nunique") > 1
        part = part[swept]
        if part.empty:
            continue
        mean = part.pivot_table(index="learning_rate", columns="rule", values="quality")
        best = mean.idxmin()
        chosen = {
            rule: part[(part["rule"] == rule) & (part["learning_rate"] == rate)].set_index("seed")["quality"]
            for rule, rate in best.items()
        }
        for rule in chosen:
            row = paired(chosen[rule], chosen[CONSTANT]) if CONSTANT in chosen else {}
            if rule != CONSTANT and row:
                rows.append({"data": data, "target": target, "rule": rule, "rate": best[rule],
                             "constant_rate": best[CONSTANT], **row})  # fmt: skip
    return pd.DataFrame(rows)
