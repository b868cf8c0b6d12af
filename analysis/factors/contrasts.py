"""From cells to answers: what each factor changes, in pairs of cells that differ in it alone, with a seed as the unit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.erd.compare import holm
from ntkdiag.claims.words import FALLS
from ntkdiag.confidence import quantile

FACTORS = ["optimizer", "rule", "prior"]
# Measure → whether its logarithm is compared, so that a difference is a factor.
MEASURES = {
    "rank_noisy": True,
    "centred_rank_noisy": True,
    "shared_noisy": False,
    "features_rank_noisy": True,
    "probe_middle": False,
    "quality": True,
    "loss": True,
}
# Name → factor, its two values, and where alone.
PAIRS = {
    "SGD, not AdamW": ("optimizer", "sgd", "adamw", None),
    "Muon, not AdamW": ("optimizer", "muon", "adamw", None),
    "ERD, not constant": ("rule", "erd", "constant", None),
    "min-SNR, not constant": ("rule", "min_snr", "constant", None),
    "the prior": ("prior", True, False, None),
    "ERD where the prior is": ("rule", "erd", "constant", True),
}
# Whether the prior changes what ERD does.
INTERACTION = "ERD with the prior, not without"
EVERY = "all"


def means(cells: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of every measure, a row a cell, and in how many seeds the rank is said to fall at the noisy end."""
    falls = cells.assign(falls=cells["word"] == FALLS).groupby(FACTORS, sort=False)
    table = falls[list(MEASURES)].mean().assign(falls=falls["falls"].sum(), seeds=falls.size())
    return table.reset_index()


def contrasts(cells: pd.DataFrame) -> pd.DataFrame:
    """Every contrast of every measure, over all optimizers and within each.

    Args:
        cells: A row a cell: seed, optimizer, rule, prior, and the measures. Seeds with a missing cell are left out.

    Returns:
        measure, scope ("all" or an optimizer), contrast, seeds, change (of ln where `MEASURES` says so), low, high (95%, of
        Student's t over seeds), p and p_holm (Holm 1979, over the contrasts of a measure and scope). Without two seeds a
        row has no interval; of seeds that all agree there is none either.
    """
    counts = cells.groupby("seed").size()
    whole = cells[cells["seed"].isin(counts.index[counts == counts.max()])]
    rows = []
    for measure, logarithm in MEASURES.items():
        values = whole.assign(value=np.log(whole[measure]) if logarithm else whole[measure])
        for scope in (EVERY, *values["optimizer"].unique()):
            part = values if scope == EVERY else values[values["optimizer"] == scope]
            found = []
            for name, changes in _changes(part, scope).items():
                found.append({"measure": measure, "scope": scope, "contrast": name, **_interval(changes)})
            corrected = holm([row["p"] for row in found])
            rows += [row | {"p_holm": p} for row, p in zip(found, corrected, strict=True)]
    return pd.DataFrame(rows)


def _changes(part: pd.DataFrame, scope: str) -> dict[str, pd.Series]:
    """The change by seed of each contrast, the mean over pairs of cells that differ in one factor."""
    found = {}
    for name, (factor, to, base, prior) in PAIRS.items():
        if factor == "optimizer" and scope != EVERY:
            continue
        chosen = part if prior is None else part[part["prior"] == prior]
        found[name] = _mean(chosen, factor, to) - _mean(chosen, factor, base)
    without = part[~part["prior"].astype(bool)]
    alone = _mean(without, "rule", "erd") - _mean(without, "rule", "constant")
    found[INTERACTION] = found["ERD where the prior is"] - alone
    return found


def _mean(cells: pd.DataFrame, factor: str, value: object) -> pd.Series:
    found: pd.Series = cells[cells[factor] == value].groupby("seed")["value"].mean()
    return found


def _interval(changes: pd.Series) -> dict[str, float]:
    count, mean = len(changes), float(changes.mean())
    if count < 2 or not changes.std() > 0:
        return {"seeds": count, "change": mean, "low": np.nan, "high": np.nan, "p": 1.0}
    reach = quantile(0.95, count - 1) * float(changes.std()) / count**0.5
    p = float(stats.ttest_1samp(changes, 0.0).pvalue)
    return {"seeds": count, "change": mean, "low": mean - reach, "high": mean + reach, "p": p}
